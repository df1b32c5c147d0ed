/** Key files: Ed25519 private keys as PKCS#8 PEM (RFC 8410), mode 0600. */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto'
import { mkdir, open, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { IpprivError } from '#base/errors'
import { type NodeId, nodeIdFromBytes } from '#base/ids'
import { readPublicKey } from '#crypto/public-key'

export interface SigningKey {
  /** 32 octets, secret. */
  readonly seed: Uint8Array
  /** 32 octets. */
  readonly publicKey: Uint8Array
}

export interface NodeKeys {
  /** SHA-256 of the public identity key. */
  readonly nodeId: NodeId
  readonly identity: SigningKey
  /** Signs IKE_AUTH. */
  readonly ike: SigningKey
}

export const IDENTITY_FILE = 'identity.pem'
export const IKE_FILE = 'ike.pem'
export const AUTHORITY_FILE = 'authority.pem'

/** @throws IpprivError IPP_KEY_UNREADABLE, IPP_KEY_INVALID */
export async function readNodeKeys(directory: string): Promise<NodeKeys> {
  const identity = await readKeyFile(join(directory, IDENTITY_FILE))
  const ike = await readKeyFile(join(directory, IKE_FILE))
  return { nodeId: nodeIdOf(identity.publicKey), identity, ike }
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

/** @throws IpprivError IPP_KEY_UNREADABLE, IPP_KEY_INVALID */
export const readAuthorityKey = (directory: string): Promise<SigningKey> =>
  readKeyFile(join(directory, AUTHORITY_FILE))

/** Makes both keys of a node. @throws IpprivError IPP_KEY_UNREADABLE when one of the files exists already. */
export async function createNodeKeys(directory: string): Promise<NodeKeys> {
  await refuseExisting(directory, [IDENTITY_FILE, IKE_FILE])
  const identity = await createKeyFile(join(directory, IDENTITY_FILE))
  const ike = await createKeyFile(join(directory, IKE_FILE))
  return { nodeId: nodeIdOf(identity.publicKey), identity, ike }
}

/** @throws IpprivError IPP_KEY_UNREADABLE when the file exists already. */
export async function createAuthorityKey(directory: string): Promise<SigningKey> {
  await refuseExisting(directory, [AUTHORITY_FILE])
  return createKeyFile(join(directory, AUTHORITY_FILE))
}

/** @throws IpprivError IPP_KEY_UNREADABLE (absent, or readable by others), IPP_KEY_INVALID */
export async function readKeyFile(file: string): Promise<SigningKey> {
  let pem: string
  try {
    const { mode } = await stat(file)
    if ((mode & 0o077) !== 0)
      throw new Error(
        `mode ${(mode & 0o777).toString(8).padStart(4, '0')} lets others read it; it must be 0600`,
      )
    pem = await readFile(file, 'utf8')
  } catch (cause) {
    throw new IpprivError('IPP_KEY_UNREADABLE', `${file}: ${(cause as Error).message}`, { cause })
  }
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch {
    // The cause could quote the file.
    throw new IpprivError('IPP_KEY_INVALID', `${file}: no PKCS#8 PEM private key`)
  }
  if (key.asymmetricKeyType !== 'ed25519')
    throw new IpprivError(
      'IPP_KEY_INVALID',
      `${file}: expected an Ed25519 key, found ${key.asymmetricKeyType}`,
    )
  return signingKey(key)
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

export const nodeIdOf = (identityKey: Uint8Array): NodeId =>
  nodeIdFromBytes(createHash('sha256').update(identityKey).digest())

async function createKeyFile(file: string): Promise<SigningKey> {
  const { privateKey } = generateKeyPairSync('ed25519')
  try {
    // `wx`: never overwrites, whatever happened since we looked.
    const handle = await open(file, 'wx', 0o600)
    try {
      await handle.writeFile(privateKey.export({ format: 'pem', type: 'pkcs8' }))
      await handle.sync()
    } finally {
      await handle.close()
    }
  } catch (cause) {
    throw new IpprivError('IPP_KEY_UNREADABLE', `${file}: ${(cause as Error).message}`, { cause })
  }
  return signingKey(privateKey)
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

const base64url = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64url'))
