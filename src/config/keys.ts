/**
 * Key files: private keys as PKCS#8 PEM, mode 0600. Ed25519 (RFC 8410), and ECDSA P-256 for peers that have no EdDSA. And
 * tokens, in hex.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import { mkdir, open, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { concat, fromHex, toHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { type NodeId, nodeIdFromBytes } from '#base/ids'
import { encodeSpki, readPublicKey } from '#crypto/public-key'
import { TOKEN_LENGTH } from '#directory/token'

export interface SigningKey {
  /** 32 octets, secret. */
  readonly seed: Uint8Array
  /** 32 octets. */
  readonly publicKey: Uint8Array
}

/** P-256. */
export interface EcdsaKey {
  /** The scalar, 32 octets, secret. */
  readonly privateKey: Uint8Array
  /** x | y. */
  readonly publicKey: Uint8Array
}

export interface NodeKeys {
  /** SHA-256 of the public identity key. */
  readonly nodeId: NodeId
  readonly identity: SigningKey
  /** Signs IKE_AUTH. */
  readonly ike: SigningKey
  /** Signs IKE_AUTH for stock peers without EdDSA. Nodes older than this have none. */
  readonly ecdsa?: EcdsaKey
}

export const IDENTITY_FILE = 'identity.pem'
export const IKE_FILE = 'ike.pem'
export const ECDSA_FILE = 'ecdsa.pem'
export const AUTHORITY_FILE = 'authority.pem'
export const SIGNING_FILE = 'signing.pem'
export const CERTIFICATE_FILE = 'signing.cert'
export const MEASURER_FILE = 'measurer.pem'
export const FAMILY_FILE = 'family.pem'
export const TOKEN_FILE = 'operator.token'

/** @throws IpprivError IPP_KEY_UNREADABLE, IPP_KEY_INVALID */
export async function readNodeKeys(directory: string): Promise<NodeKeys> {
  const identity = await readKeyFile(join(directory, IDENTITY_FILE))
  const ike = await readKeyFile(join(directory, IKE_FILE))
  const ecdsaFile = join(directory, ECDSA_FILE)
  const ecdsa = (await exists(ecdsaFile)) ? await readEcdsaFile(ecdsaFile) : undefined
  return { nodeId: nodeIdOf(identity.publicKey), identity, ike, ...(ecdsa === undefined ? {} : { ecdsa }) }
}

/**
 * The keys of a stock router as its operator has them: an identity to speak for it, and the public key it signs
 * IKE_AUTH with, in the form in which nodes pin it. @throws IpprivError IPP_KEY_UNREADABLE, IPP_KEY_INVALID
 */
export async function readStockKeys(
  directory: string,
  publicKeyFile: string | undefined,
): Promise<{ readonly nodeId: NodeId; readonly identity: SigningKey; readonly ikeKey: Uint8Array }> {
  const identity = await readKeyFile(join(directory, IDENTITY_FILE))
  const ikeKey =
    publicKeyFile === undefined
      ? (await readKeyFile(join(directory, IKE_FILE))).publicKey
      : await readPublicKeyFile(publicKeyFile)
  return { nodeId: nodeIdOf(identity.publicKey), identity, ikeKey }
}

/** What an authority signs with: its own key, or one that it certified, with the line that says so. */
export interface AuthorityKey {
  readonly key: SigningKey
  /** Not verified. */
  readonly certificate: string | undefined
}

/**
 * The signing key and its certificate where there is one; then the authority's own key need not be on this host.
 * @throws IpprivError IPP_KEY_UNREADABLE, IPP_KEY_INVALID
 */
export async function readAuthorityKey(directory: string): Promise<AuthorityKey> {
  const signing = join(directory, SIGNING_FILE)
  if (!(await exists(signing)))
    return { key: await readKeyFile(join(directory, AUTHORITY_FILE)), certificate: undefined }
  const file = join(directory, CERTIFICATE_FILE)
  try {
    return { key: await readKeyFile(signing), certificate: (await readFile(file, 'utf8')).trim() }
  } catch (cause) {
    if (cause instanceof IpprivError) throw cause
    throw new IpprivError('IPP_KEY_UNREADABLE', `${file}: ${(cause as Error).message}`, { cause })
  }
}

/** @throws IpprivError IPP_KEY_UNREADABLE when the file exists already. */
export async function createSigningKey(directory: string): Promise<SigningKey> {
  await refuseExisting(directory, [SIGNING_FILE])
  return createKeyFile(join(directory, SIGNING_FILE))
}

/** Makes all keys of a node. @throws IpprivError IPP_KEY_UNREADABLE when one of the files exists already. */
export async function createNodeKeys(directory: string): Promise<Required<NodeKeys>> {
  await refuseExisting(directory, [IDENTITY_FILE, IKE_FILE, ECDSA_FILE])
  const identity = await createKeyFile(join(directory, IDENTITY_FILE))
  const ike = await createKeyFile(join(directory, IKE_FILE))
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: P256 })
  await writeKeyFile(join(directory, ECDSA_FILE), privateKey)
  return { nodeId: nodeIdOf(identity.publicKey), identity, ike, ecdsa: ecdsaPair(privateKey) }
}

/** @throws IpprivError IPP_KEY_UNREADABLE when the file exists already. */
export async function createAuthorityKey(directory: string): Promise<SigningKey> {
  await refuseExisting(directory, [AUTHORITY_FILE])
  return createKeyFile(join(directory, AUTHORITY_FILE))
}

/** @throws IpprivError IPP_KEY_UNREADABLE when the file exists already. */
export async function createMeasurerKey(directory: string): Promise<SigningKey> {
  await refuseExisting(directory, [MEASURER_FILE])
  return createKeyFile(join(directory, MEASURER_FILE))
}

/** @throws IpprivError IPP_KEY_UNREADABLE when the file exists already. */
export async function createFamilyKey(directory: string): Promise<SigningKey> {
  await refuseExisting(directory, [FAMILY_FILE])
  return createKeyFile(join(directory, FAMILY_FILE))
}

/** Makes the token of an operator, 32 octets: for nodes that need not work. @throws IpprivError IPP_KEY_UNREADABLE */
export async function createToken(directory: string): Promise<Uint8Array> {
  await refuseExisting(directory, [TOKEN_FILE])
  const token = new Uint8Array(randomBytes(TOKEN_LENGTH))
  await writeSecret(join(directory, TOKEN_FILE), `${toHex(token)}\n`)
  return token
}

/** @throws IpprivError IPP_KEY_UNREADABLE (absent, or readable by others), IPP_KEY_INVALID */
export async function readToken(file: string): Promise<Uint8Array> {
  const text = (await readSecret(file)).trim()
  if (!/^[0-9a-f]+$/.test(text) || text.length !== 2 * TOKEN_LENGTH)
    throw new IpprivError('IPP_KEY_INVALID', `${file}: expected ${2 * TOKEN_LENGTH} hex digits`)
  return fromHex(text)
}

/** @throws IpprivError IPP_KEY_UNREADABLE (absent, or readable by others), IPP_KEY_INVALID */
export async function readKeyFile(file: string): Promise<SigningKey> {
  const key = await readPrivateKey(file)
  if (key.asymmetricKeyType !== 'ed25519')
    throw new IpprivError(
      'IPP_KEY_INVALID',
      `${file}: expected an Ed25519 key, found ${key.asymmetricKeyType}`,
    )
  return signingKey(key)
}

async function readEcdsaFile(file: string): Promise<EcdsaKey> {
  const key = await readPrivateKey(file)
  const found = key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyType
  if (found !== P256)
    throw new IpprivError('IPP_KEY_INVALID', `${file}: expected an ECDSA P-256 key, found ${found}`)
  return ecdsaPair(key)
}

async function readPrivateKey(file: string): Promise<KeyObject> {
  const pem = await readSecret(file)
  try {
    return createPrivateKey(pem)
  } catch {
    // The cause could quote the file.
    throw new IpprivError('IPP_KEY_INVALID', `${file}: no PKCS#8 PEM private key`)
  }
}

async function readSecret(file: string): Promise<string> {
  try {
    const { mode } = await stat(file)
    if ((mode & 0o077) !== 0)
      throw new Error(
        `mode ${(mode & 0o777).toString(8).padStart(4, '0')} lets others read it; it must be 0600`,
      )
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new IpprivError('IPP_KEY_UNREADABLE', `${file}: ${(cause as Error).message}`, { cause })
  }
}

async function readPublicKeyFile(file: string): Promise<Uint8Array> {
  let pem: string
  try {
    pem = await readFile(file, 'utf8')
  } catch (cause) {
    throw new IpprivError('IPP_KEY_UNREADABLE', `${file}: ${(cause as Error).message}`, { cause })
  }
  let der: Uint8Array
  try {
    // A private key would do as well, and does not belong here.
    if (pem.includes('PRIVATE KEY')) throw new Error('a private key')
    der = new Uint8Array(createPublicKey(pem).export({ format: 'der', type: 'spki' }))
  } catch {
    throw new IpprivError('IPP_KEY_INVALID', `${file}: no PEM public key`)
  }
  const key = readPublicKey(der)
  if (key === undefined)
    throw new IpprivError(
      'IPP_KEY_INVALID',
      `${file}: expected Ed25519, ECDSA P-256 or P-384, or RSA of 2048 bits or more`,
    )
  return key.kind === 'ed25519' ? key.octets : der
}

/** The public half of a P-256 key as peers pin it. */
export const ecdsaSpki = ({ publicKey }: EcdsaKey): Uint8Array =>
  encodeSpki({ kind: 'ecdsa', curve: 'p256', point: publicKey })

export const nodeIdOf = (identityKey: Uint8Array): NodeId =>
  nodeIdFromBytes(createHash('sha256').update(identityKey).digest())

async function createKeyFile(file: string): Promise<SigningKey> {
  const { privateKey } = generateKeyPairSync('ed25519')
  await writeKeyFile(file, privateKey)
  return signingKey(privateKey)
}

async function writeKeyFile(file: string, privateKey: KeyObject): Promise<void> {
  await writeSecret(file, privateKey.export({ format: 'pem', type: 'pkcs8' }))
}

async function writeSecret(file: string, secret: string | Buffer): Promise<void> {
  try {
    // `wx`: never overwrites, whatever happened since we looked.
    const handle = await open(file, 'wx', 0o600)
    try {
      await handle.writeFile(secret)
      await handle.sync()
    } finally {
      await handle.close()
    }
  } catch (cause) {
    throw new IpprivError('IPP_KEY_UNREADABLE', `${file}: ${(cause as Error).message}`, { cause })
  }
}

async function refuseExisting(directory: string, names: readonly string[]): Promise<void> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw new IpprivError('IPP_KEY_UNREADABLE', `${directory}: ${(cause as Error).message}`, { cause })
  }
  for (const name of names) {
    const file = join(directory, name)
    if (await exists(file))
      throw new IpprivError(
        'IPP_KEY_UNREADABLE',
        `${file} exists already and is not overwritten; move it away first`,
      )
  }
}

async function exists(file: string): Promise<boolean> {
  try {
    await stat(file)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw new IpprivError('IPP_KEY_UNREADABLE', `${file}: ${(error as Error).message}`, { cause: error })
  }
}

function signingKey(key: KeyObject): SigningKey {
  const { d } = key.export({ format: 'jwk' })
  const { x } = createPublicKey(key).export({ format: 'jwk' })
  return { seed: base64url(d!), publicKey: base64url(x!) }
}

function ecdsaPair(key: KeyObject): EcdsaKey {
  const { d, x, y } = key.export({ format: 'jwk' })
  return { privateKey: base64url(d!), publicKey: concat(base64url(x!), base64url(y!)) }
}

const P256 = 'prime256v1'

const base64url = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64url'))
