/**
 * The directory's memory, in `level`. Every acknowledged change is one write batch with fsync: after a crash at
 * any instant it is there whole or not at all.
 *
 *     node!<nodeId>   {"text":"<signed descriptor>","pool":"10.64.0.0/20","since":1767225600}
 *     meta!serial     the serial of the last document that was signed
 *     meta!consensus  that document
 *
 * Descriptors are verified again when they are read: a damaged disk cannot put a node on the list.
 */
import { Level } from 'level'
import { type Static, Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { utf8 } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { isNodeId, type NodeId } from '#base/ids'
import { formatPrefix, parsePrefix } from '#base/ip'
import type { UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type { NodeRecord } from '#directory/admission'
import { decodeDescriptor, type SignedDescriptor } from '#directory/descriptor'
import { Moment, PrefixText } from '#directory/schemas'

export interface StoredState {
  readonly records: ReadonlyMap<NodeId, NodeRecord>
  /** 0: no document was ever signed. */
  readonly serial: number
  /** The last document, or undefined. Not verified. */
  readonly document: string | undefined
  /** Keys of entries that were unreadable and are ignored. */
  readonly damaged: readonly string[]
}

/** All methods throw IPP_STATE_UNUSABLE when the disk fails, and then nothing was changed. */
export interface DirectoryStore {
  load(): Promise<StoredState>
  putNode(record: NodeRecord): Promise<void>
  /** A new document, and the records that end with it. */
  putDocument(serial: number, document: string, outlived: readonly NodeId[]): Promise<void>
  /** Everything, as it is at the first look. */
  entries(): AsyncIterable<[string, string]>
  close(): Promise<void>
}

/** @throws IpprivError IPP_STATE_UNUSABLE: the folder is locked by another daemon, not writable, or damaged. */
export async function openDirectoryStore(folder: string, crypto: CryptoProvider): Promise<DirectoryStore> {
  const db: Db = new Level(folder, { keyEncoding: 'utf8', valueEncoding: 'utf8' })
  await guarded(folder, () => db.open())
  return {
    load: () => guarded(folder, () => load(db, crypto)),
    putNode: (record) =>
      guarded(folder, () =>
        db.batch([{ type: 'put', key: nodeKey(record.descriptor.nodeId), value: writeRecord(record) }], SYNC),
      ),
    putDocument: (serial, document, outlived) =>
      guarded(folder, () =>
        db.batch(
          [
            { type: 'put', key: SERIAL, value: String(serial) },
            { type: 'put', key: DOCUMENT, value: document },
            ...outlived.map((id) => ({ type: 'del' as const, key: nodeKey(id) })),
          ],
          SYNC,
        ),
      ),
    entries: () => db.iterator(),
    close: () => guarded(folder, () => db.close()),
  }
}

type Db = Level<string, string>

const SERIAL = 'meta!serial'
const DOCUMENT = 'meta!consensus'
const NODE = 'node!'
export const nodeKey = (id: NodeId): string => `${NODE}${id}`

/** LevelDB's fsync before it says done. */
const SYNC = { sync: true }

const Stored = Type.Object(
  { text: Type.String(), pool: PrefixText, since: Moment },
  { additionalProperties: false },
)
const stored = Compile(Stored)

async function load(db: Db, crypto: CryptoProvider): Promise<StoredState> {
  const { records, damaged } = await readNodes(db, (value) => readRecord(value, crypto))
  const serialText = (await db.get(SERIAL)) ?? '0'
  const serial = Number(serialText)
  // Without the serial the next document might repeat one that clients have seen: that is for a person to solve.
  if (!/^\d+$/.test(serialText) || !Number.isSafeInteger(serial))
    throw new Error('the stored serial number is damaged')
  return { records, serial, document: await db.get(DOCUMENT), damaged }
}

const writeRecord = ({ text, pool, since }: NodeRecord): string =>
  JSON.stringify({ text, pool: formatPrefix(pool), since } satisfies Static<typeof Stored>)

function readRecord(value: string, crypto: CryptoProvider): NodeRecord | undefined {
  const parsed = parseJson(value)
  if (!stored.Check(parsed)) return undefined
  const descriptor = decodeDescriptor(utf8(parsed.text), crypto)
  const pool = parsePrefix(parsed.pool)
  if (!descriptor.ok || pool === undefined) return undefined
  return { descriptor: descriptor.value, text: parsed.text, pool, since: parsed.since as UnixTime }
}

/** Every record under `nodeKey`; `damaged` are the keys of those that `read` could make nothing of, or another's. */
export async function readNodes<Kept extends SignedDescriptor>(
  db: Level<string, string>,
  read: (value: string) => Kept | undefined,
): Promise<{ readonly records: Map<NodeId, Kept>; readonly damaged: string[] }> {
  const records = new Map<NodeId, Kept>()
  const damaged: string[] = []
  for await (const [key, value] of db.iterator({ gt: NODE, lt: `${NODE}~` })) {
    const record = read(value)
    const id = key.slice(NODE.length)
    if (record !== undefined && isNodeId(id) && record.descriptor.nodeId === id) records.set(id, record)
    else damaged.push(key)
  }
  return { records, damaged }
}

/** Undefined: not JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // The caller reports the entry as damaged.
    return undefined
  }
}

/** @throws IpprivError IPP_STATE_UNUSABLE for everything that the disk or `level` did not like. */
export async function guarded<T>(folder: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation()
  } catch (error) {
    throw new IpprivError('IPP_STATE_UNUSABLE', `${folder}: ${reasonOf(error)}`, { cause: error })
  }
}

/** `level` wraps the reason that matters, once or twice. */
function reasonOf(error: unknown): string {
  let deepest = error
  while (deepest instanceof Error && deepest.cause instanceof Error) deepest = deepest.cause
  if (!(deepest instanceof Error)) return String(deepest)
  const locked = 'code' in deepest && deepest.code === 'LEVEL_LOCKED'
  return locked ? 'another process uses it' : deepest.message.replaceAll(/\s+/g, ' ')
}
