/**
 * How authorities come to be, and how they change: files that go from hand to hand. Nothing here speaks to the network,
 * so every step can be done on a machine that is on none, with keys that never leave it.
 *
 *     ash.json          a card: name, public key and URL of one authority, to be given to the others
 *     bootstrap.draft   the body of a bootstrap document, and the signatures it has by now
 *     bootstrap         the chain of documents that were signed by enough (directory/bootstrap.ts)
 */
import { access, mkdir, open, readFile, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { equalBytes, fromHex, toHex, utf8 } from '#base/bytes'
import { type ErrorCode, IpprivError } from '#base/errors'
import { unwrap } from '#base/result'
import { unixTime } from '#base/time'
import { createAuthorityKey, readKeyFile } from '#config/keys'
import { nodeCrypto } from '#crypto/node'
import { type Bootstrap, bootstrapBody, readChain } from '#directory/bootstrap'
import { formatSignature, type Signature, signBody, verifyBody } from '#directory/canonical'
import type { Member } from '#directory/minutes'

/** What others must know of an authority. */
export interface Card {
  readonly name: string
  readonly key: string
  readonly url: string
}

export interface Draft {
  readonly body: string
  readonly serial: number
  readonly threshold: number
  readonly authorities: readonly Member[]
  /** Valid ones. */
  readonly signatures: readonly Signature[]
}

/**
 * Makes the key of an authority, a configuration to start from, and its card. @throws IpprivError IPP_KEY_UNREADABLE,
 * IPP_STATE_UNUSABLE (a file is there already), IPP_DIR_MALFORMED (no name or URL of an authority)
 */
export async function initAuthority({
  name,
  url,
  dir,
}: {
  name: string
  url: string
  dir: string
}): Promise<Card> {
  // Looked at before a key is made: a card that nobody can use is found out now.
  checkCard({ name, url, key: '00'.repeat(32) }, 'card')
  const config = join(dir, 'directory.yaml')
  for (const file of [config, join(dir, `${name}.json`)]) await refuseExisting(file)
  const { publicKey } = await createAuthorityKey(join(dir, 'keys'))
  const card: Card = { name, key: toHex(publicKey), url }
  await writeNew(join(dir, `${name}.json`), `${JSON.stringify(card, null, 2)}\n`)
  await writeNew(config, configOf(card))
  return card
}

/** The first document, of these authorities. @throws IpprivError IPP_CONFIG_UNREADABLE, IPP_DIR_MALFORMED */
export async function draftBootstrap(cards: readonly string[], threshold: number): Promise<Draft> {
  const authorities = await Promise.all(cards.map(readCard))
  return draftOf(1, threshold, authorities)
}

export type Change = { readonly add: string } | { readonly remove: string }

/**
 * The successor of the last document of a file, with one authority more (the file of its card) or less (its name).
 * Without a threshold: the smallest that is safe. @throws IpprivError IPP_CONFIG_UNREADABLE, IPP_DIR_*
 */
export async function draftChange(file: string, change: Change, threshold?: number): Promise<Draft> {
  const last = (await readBootstrapFile(file)).at(-1)
  if (last === undefined) throw new IpprivError('IPP_DIR_MALFORMED', `${file}: it is empty`)
  const authorities =
    'add' in change
      ? [...last.authorities, await readCard(change.add)]
      : last.authorities.filter(({ name }) => name !== change.remove)
  if ('remove' in change && authorities.length === last.authorities.length)
    throw new IpprivError('IPP_DIR_MALFORMED', `${file}: no authority is named ${change.remove}`)
  return draftOf(last.serial + 1, threshold ?? smallestThreshold(authorities.length), authorities)
}

/** More than half of them. */
export const smallestThreshold = (authorities: number): number => Math.floor(authorities / 2) + 1

/**
 * Signs a draft where it lies. The key may be of an authority that leaves: its network must agree, too.
 * @throws IpprivError IPP_KEY_*, IPP_CONFIG_UNREADABLE, IPP_DIR_MALFORMED
 */
export async function signDraft(file: string, keyFile: string): Promise<Draft> {
  const draft = await readDraft(file)
  const { seed, publicKey } = await readKeyFile(keyFile)
  const signature = signBody('bootstrap', draft.body, { privateKey: seed, publicKey }, nodeCrypto)
  const signed = { ...draft, signatures: joined([...draft.signatures, signature]) }
  await writeDraft(file, signed)
  return signed
}

/**
 * Puts the signatures of drafts together, and behind the chain of `file`, which is made when it is missing.
 * @throws IpprivError IPP_DIR_BAD_SIGNATURE (not enough yet), IPP_DIR_REPLAYED, IPP_DIR_MALFORMED, IPP_CONFIG_UNREADABLE
 */
export async function adoptDrafts(file: string, drafts: readonly string[]): Promise<Bootstrap> {
  const read = await Promise.all(drafts.map(readDraft))
  const [first] = read
  if (first === undefined || read.some(({ body }) => body !== first.body))
    throw new IpprivError('IPP_DIR_MALFORMED', 'bootstrap: the drafts do not say the same')
  const signatures = joined(read.flatMap((draft) => draft.signatures))
  const before = (await exists(file)) ? await readText(file) : ''
  const chain = before + documentText({ ...first, signatures })
  // Read as everybody will read it.
  const adopted = unwrap(readChain(utf8(chain), nodeCrypto)).at(-1)
  if (adopted === undefined) throw new IpprivError('IPP_INTERNAL', 'a chain that was written is empty')
  await replaceFile(file, chain)
  return adopted
}

/** @throws IpprivError IPP_CONFIG_UNREADABLE, IPP_DIR_MALFORMED */
export async function readDraft(file: string): Promise<Draft> {
  const [body = '', ...lines] = (await readText(file)).split('\n')
  const value = parse(body, file)
  const { serial, threshold, authorities } = value as Partial<Bootstrap>
  if (typeof serial !== 'number' || typeof threshold !== 'number' || !Array.isArray(authorities))
    throw new IpprivError('IPP_DIR_MALFORMED', `${file}: it is no draft of a bootstrap document`)
  const members = authorities.map((card) => memberOf(card, file))
  const { published } = value as { published: number }
  const same = unwrap(
    bootstrapBody({ serial, published: unixTime(published), threshold, authorities: members }),
  )
  if (same !== body)
    throw new IpprivError('IPP_DIR_MALFORMED', `${file}: its first line is not as it is written`)
  const signatures = lines.flatMap((line) => signatureOf(line, body) ?? [])
  return { body, serial, threshold, authorities: members, signatures: joined(signatures) }
}

/** @throws IpprivError IPP_STATE_UNUSABLE */
export const writeDraft = (file: string, draft: Draft): Promise<void> =>
  replaceFile(file, documentText(draft))

/** All documents of a file, proven. @throws IpprivError IPP_CONFIG_UNREADABLE, IPP_DIR_* */
export const readBootstrapFile = async (file: string): Promise<readonly Bootstrap[]> =>
  unwrap(readChain(utf8(await readText(file)), nodeCrypto))

function draftOf(serial: number, threshold: number, authorities: readonly Member[]): Draft {
  const published = unixTime(Date.now() / 1000)
  const body = unwrap(bootstrapBody({ serial, published, threshold, authorities }))
  return { body, serial, threshold, authorities, signatures: [] }
}

const documentText = ({ body, signatures }: Draft): string =>
  [body, ...signatures.map(formatSignature), ''].join('\n')

/** Each key once, in the order of the keys. */
function joined(signatures: readonly Signature[]): Signature[] {
  const byKey = new Map(signatures.map((signature) => [toHex(signature.key), signature]))
  return [...byKey].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, signature]) => signature)
}

/** Undefined: it is none over this body. */
function signatureOf(line: string, body: string): Signature | undefined {
  const { key, signature } =
    /^\{"key":"(?<key>[0-9a-f]{64})","signature":"(?<signature>[A-Za-z0-9+/]{86}==)"\}$/.exec(line)?.groups ??
    {}
  if (key === undefined || signature === undefined) return undefined
  const found = { key: fromHex(key), value: new Uint8Array(Buffer.from(signature, 'base64')) }
  return verifyBody('bootstrap', body, found, nodeCrypto) ? found : undefined
}

/** Does the draft have a signature of this authority? */
export const hasSigned = ({ signatures }: Draft, { key }: Member): boolean =>
  signatures.some((signature) => equalBytes(signature.key, key))

async function readCard(file: string): Promise<Member> {
  return memberOf(parse(await readText(file), file), file)
}

function memberOf(value: unknown, file: string): Member {
  const { name, key, url } = (value ?? {}) as Partial<Record<keyof Card, unknown>>
  if (
    typeof name !== 'string' ||
    typeof key !== 'string' ||
    typeof url !== 'string' ||
    !/^[0-9a-f]{64}$/.test(key)
  )
    throw new IpprivError('IPP_DIR_MALFORMED', `${file}: expected name, key and url of an authority`)
  return checkCard({ name, key, url }, file)
}

/** By the rules of the documents it will stand in. */
function checkCard({ name, key, url }: Card, file: string): Member {
  const member = { name, key: fromHex(key), url }
  const read = bootstrapBody({ serial: 1, published: unixTime(0), threshold: 1, authorities: [member] })
  if (!read.ok) throw new IpprivError(read.code, `${file}: ${read.where}`)
  return member
}

function configOf({ name, url }: Card): string {
  const { hostname, port } = new URL(url)
  return `# The authority ${name}. docs/config.md has every setting.
listen: { address: ${hostname}, port: ${port || 80} }
keys: keys
state: /var/lib/ippriv/directory
control: /run/ippriv-directory/directory.sock
# The file that the authorities signed together: ippriv directory draft, sign, adopt.
bootstrap: bootstrap
poolSpace: 10.64.0.0/10
poolLength: 20
period: 3600
`
}

function parse(text: string, file: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new IpprivError('IPP_DIR_MALFORMED', `${file}: it is no JSON`)
  }
}

const readText = (file: string): Promise<string> =>
  guarded('IPP_CONFIG_UNREADABLE', file, () => readFile(file, 'latin1'))

/** Whole or not at all. */
const replaceFile = (file: string, text: string): Promise<void> =>
  guarded('IPP_STATE_UNUSABLE', file, async () => {
    {
      await using handle = await open(`${file}.new`, 'w', 0o644)
      await handle.writeFile(text)
      await handle.sync()
    }
    await rename(`${file}.new`, file)
  })

const writeNew = (file: string, text: string): Promise<void> =>
  guarded('IPP_STATE_UNUSABLE', file, async () => {
    await mkdir(dirname(file), { recursive: true })
    await using handle = await open(file, 'wx', 0o644)
    await handle.writeFile(text)
  })

async function refuseExisting(file: string): Promise<void> {
  if (await exists(file))
    throw new IpprivError('IPP_STATE_UNUSABLE', `${file} exists already and is not overwritten`)
}

const exists = (file: string): Promise<boolean> =>
  access(file).then(
    () => true,
    () => false,
  )

async function guarded<T>(code: ErrorCode, file: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation()
  } catch (cause) {
    throw new IpprivError(code, `${file}: ${(cause as Error).message}`, { cause })
  }
}
