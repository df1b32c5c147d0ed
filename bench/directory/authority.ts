/**
 * One of the authorities in a process of its own: `authority.ts NETWORK.json INDEX`. It is told by messages to vote, to
 * hear what the others said, and to count; after each it says how long that took and how much memory it has.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { utf8 } from '#base/bytes'
import { unwrap } from '#base/result'
import { unixTime } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { Authority } from '#directory/authority'
import type { AuthorityEffect, AuthorityRecord, MessageKind } from '#directory/authority-events'
import { decodeDescriptor } from '#directory/descriptor'
import { scheduleOf } from '#directory/schedule'
import { PERIOD, PLAN, START } from './network.ts'

/** As the parent wrote it: keys in hex, pools as slots. */
export interface NetworkFile {
  readonly folder: string
  readonly threshold: number
  readonly keys: readonly { readonly publicKey: string; readonly privateKey: string }[]
  readonly nodes: readonly string[]
}

export type Turn = 'vote' | 'hear-votes' | 'roll' | 'hear-rolls' | 'count' | 'hear-signatures' | 'publish'
export interface TurnDone {
  readonly turn: Turn
  readonly ms: number
  readonly octets: number
  /** The most there was so far, in octets. */
  readonly resident: number
  readonly serial: number
  readonly listed: number
}

const fromHex = (text: string): Uint8Array => Buffer.from(text, 'hex')

function main(): void {
  const [, , file = '', index = ''] = process.argv
  const self = Number(index)
  const network = JSON.parse(readFileSync(file, 'utf8')) as NetworkFile
  const keys = network.keys.map(({ publicKey, privateKey }) => ({
    publicKey: fromHex(publicKey),
    privateKey: fromHex(privateKey),
  }))
  const records = new Map(
    network.nodes.map((text) => {
      const descriptor = unwrap(decodeDescriptor(utf8(text), nodeCrypto))
      const record: AuthorityRecord = { descriptor, text, pool: undefined, since: START }
      return [descriptor.nodeId, record] as const
    }),
  )
  const authority = new Authority({
    key: keys[self]!,
    authorities: keys.map(({ publicKey }) => publicKey),
    threshold: network.threshold,
    terms: { length: PERIOD, plan: PLAN },
    crypto: nodeCrypto,
    kept: { records, document: undefined, voted: 0, signed: 0 },
  })
  const at = scheduleOf(START / PERIOD + 1, PERIOD)
  let octets = 0
  const perform = (effects: readonly AuthorityEffect[]): void => {
    for (const effect of effects) {
      if (effect.kind === 'alarm') throw new Error(`alarm ${effect.name}`)
      if (effect.kind !== 'tell') continue
      octets += effect.text.length
      writeFileSync(join(network.folder, `${effect.message}-${self}`), effect.text)
    }
  }
  const hear = (kind: MessageKind, now: number): void => {
    for (const other of keys.keys()) {
      if (other === self) continue
      const text = readFileSync(join(network.folder, `${kind}-${other}`))
      perform(unwrap(authority.hear(kind, text, unixTime(now))))
    }
  }
  const turns: Record<Turn, () => void> = {
    vote: () => perform(authority.tick(at.vote)),
    'hear-votes': () => hear('vote', at.vote + 1),
    roll: () => perform(authority.tick(at.roll)),
    'hear-rolls': () => hear('roll', at.roll + 1),
    count: () => perform(authority.tick(at.sign)),
    'hear-signatures': () => hear('signature', at.sign + 1),
    publish: () => perform(authority.tick(at.start)),
  }
  process.on('message', (turn: Turn | 'end') => {
    if (turn === 'end') return process.disconnect()
    octets = 0
    const began = performance.now()
    turns[turn]()
    const done: TurnDone = {
      turn,
      ms: performance.now() - began,
      octets,
      resident: process.resourceUsage().maxRSS * 1024,
      serial: authority.document?.consensus.serial ?? 0,
      listed: authority.document?.consensus.nodes.length ?? 0,
    }
    process.send!(done)
  })
  process.send!('ready')
}

if (process.argv[1] === import.meta.filename) main()
