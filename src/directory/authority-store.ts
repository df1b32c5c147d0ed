/**
 * What an authority must not forget, in `level`. Every change is one write batch with fsync: after a crash at any
 * instant it is there whole or not at all.
 *
 *     node!<nodeId>   {"text":"<signed descriptor>","pool":"10.64.0.0/20","since":1767225600,"up":1767225900,
 *                      "figure":[81920,1767229200]}
 *     meta!voted      the last period it voted in
 *     meta!signed     the last period it signed for
 *     meta!consensus  the last document
 *
 * Descriptors and the document are verified again when they are read.
 */
import { Level } from 'level'
import { type Static, Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { utf8 } from '#base/bytes'
import { formatPrefix, parsePrefix } from '#base/ip'
import type { UnixTime } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import type { AuthorityEffect, AuthorityRecord, KeptState } from '#directory/authority-events'
import { decodeDescriptor } from '#directory/descriptor'
import { MAX_BANDWIDTH } from '#directory/measurement'
import { Moment, PrefixText } from '#directory/schemas'
import { guarded, nodeKey, parseJson, readNodes } from '#directory/store'

/** Effects that are to outlive a crash. */
export type Lasting = Extract<AuthorityEffect, { kind: 'keep' | 'forget' | 'publish' }>

export interface Loaded extends KeptState {
  /** Keys of entries that were unreadable and are ignored. */
  readonly damaged: readonly string[]
}

/** All methods throw IPP_STATE_UNUSABLE when the disk fails, and then nothing was changed. */
export interface AuthorityStore {
  load(): Promise<Loaded>
  /** All of them or none. */
  write(effects: readonly Lasting[]): Promise<void>
  /** Everything, as it is at the first look. */
  entries(): AsyncIterable<[string, string]>
  close(): Promise<void>
}

/** @throws IpprivError IPP_STATE_UNUSABLE: the folder is locked by another daemon, not writable, or damaged. */
export async function openAuthorityStore(folder: string, crypto: CryptoProvider): Promise<AuthorityStore> {
  const db: Db = new Level(folder, { keyEncoding: 'utf8', valueEncoding: 'utf8' })
  await guarded(folder, () => db.open())
  return {
    load: () => guarded(folder, () => load(db, crypto)),
    // LevelDB's fsync before it says done.
    write: (effects) => guarded(folder, () => db.batch(effects.flatMap(changesOf), { sync: true })),
    entries: () => db.iterator(),
    close: () => guarded(folder, () => db.close()),
  }
}

type Db = Level<string, string>
type Change =
  | { readonly type: 'put'; readonly key: string; readonly value: string }
  | { readonly type: 'del'; readonly key: string }

const DOCUMENT = 'meta!consensus'
const metaKey = (what: 'voted' | 'signed'): string => `meta!${what}`

function changesOf(effect: Lasting): Change[] {
  switch (effect.kind) {
    case 'publish':
      return [{ type: 'put', key: DOCUMENT, value: effect.text }]
    case 'forget':
      return effect.nodes.map((id) => ({ type: 'del', key: nodeKey(id) }))
    case 'keep':
      return effect.what === 'nodes'
        ? effect.records.map((record) => ({
            type: 'put',
            key: nodeKey(record.descriptor.nodeId),
            value: writeRecord(record),
          }))
        : [{ type: 'put', key: metaKey(effect.what), value: String(effect.period) }]
  }
}

const Stored = Type.Object(
  {
    text: Type.String(),
    pool: Type.Optional(PrefixText),
    since: Moment,
    up: Type.Optional(Moment),
    figure: Type.Optional(Type.Tuple([Type.Integer({ minimum: 0, maximum: MAX_BANDWIDTH }), Moment])),
  },
  { additionalProperties: false },
)
const stored = Compile(Stored)

async function load(db: Db, crypto: CryptoProvider): Promise<Loaded> {
  const { records, damaged } = await readNodes(db, (value) => readRecord(value, crypto))
  return {
    records,
    document: await db.get(DOCUMENT),
    voted: await readPeriod(db, 'voted'),
    signed: await readPeriod(db, 'signed'),
    damaged,
  }
}

/** Without it an authority could vote or sign a second time: that is for a person to solve. */
async function readPeriod(db: Db, what: 'voted' | 'signed'): Promise<number> {
  const text = (await db.get(metaKey(what))) ?? '0'
  const period = Number(text)
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(period))
    throw new Error(`the stored period in which it ${what} is damaged`)
  return period
}

const writeRecord = ({ text, pool, since, up, figure }: AuthorityRecord): string =>
  JSON.stringify({
    text,
    ...(pool === undefined ? {} : { pool: formatPrefix(pool) }),
    since,
    ...(up === undefined ? {} : { up }),
    ...(figure === undefined ? {} : { figure: [figure.bandwidth, figure.at] }),
  } satisfies Static<typeof Stored>)

function readRecord(value: string, crypto: CryptoProvider): AuthorityRecord | undefined {
  const parsed = parseJson(value)
  if (!stored.Check(parsed)) return undefined
  const descriptor = decodeDescriptor(utf8(parsed.text), crypto)
  const pool = parsed.pool === undefined ? undefined : parsePrefix(parsed.pool)
  if (!descriptor.ok || (parsed.pool !== undefined && pool === undefined)) return undefined
  return {
    descriptor: descriptor.value,
    text: parsed.text,
    pool,
    since: parsed.since as UnixTime,
    ...(parsed.up === undefined ? {} : { up: parsed.up as UnixTime }),
    ...(parsed.figure === undefined
      ? {}
      : { figure: { bandwidth: parsed.figure[0], at: parsed.figure[1] as UnixTime } }),
  }
}
