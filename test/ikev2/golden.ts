/**
 * Conversations of two engines of ours with everything random from a seed, as octets: test/vectors/golden-ikev2.json. A
 * change of what we send is a change of that file, which `node test/ikev2/golden.ts --write` makes.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { toHex, utf8 } from '#base/bytes'
import { ip, type UdpPath } from '#base/ip'
import { HOUR, SECOND } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import type { EspCipher } from '#crypto/suites'
import type { InitiateRequest, ResponderPolicy } from '#ikev2/events'
import { FRAGMENT_HEADER_LENGTH, MessageKey } from '#ikev2/message/encrypted'
import { Reassembly, readFragmentOf } from '#ikev2/message/fragment'
import { decodeHeader, HEADER_LENGTH } from '#ikev2/message/header'
import { decodePayloads, type Payload } from '#ikev2/message/payload'
import { unframe } from '#ikev2/nat'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import type { ResumptionTicket } from '#ikev2/resumption/ticket'
import { type Datagram, pathOf } from '../sim/network.ts'
import { seededCrypto, seededRng } from '../sim/random.ts'
import { CLIENT, connect, find, NODE, nodeKey, type Pair, pair } from './pair.ts'

export interface Golden {
  readonly name: string
  /** Every set of keys of an IKE SA, key and salt, in the order in which the client made them. */
  readonly keys: readonly { readonly cipher: EspCipher; readonly skEi: string; readonly skEr: string }[]
  readonly messages: readonly GoldenMessage[]
}

/** One datagram. */
export interface GoldenMessage {
  readonly from: 'client' | 'node'
  /** As its receiver sees it. */
  readonly ports: readonly [source: number, destination: number]
  /** For people; of a fragmented message the last piece tells. */
  readonly what: string
  readonly hex: string
}

const FILE = new URL('../vectors/golden-ikev2.json', import.meta.url)
const ELSEWHERE = ip('203.0.113.77')
const PUBLISHED = utf8('published')
const GUEST = nodeKey(seededCrypto(seededRng(77)))

export const readGolden = (): Golden[] => JSON.parse(readFileSync(FILE, 'utf8')) as Golden[]

// ---------------------------------------------------------------------------------------------- conversations

interface Scene {
  readonly options?: Parameters<typeof pair>[0]
  play(stage: Pair): void
}

const RESUMABLE: Partial<ResponderPolicy> = {
  resumption: { strategy: { kind: 'clocked', limit: HOUR }, mayResume: () => true, octetsOf: () => 0 },
}
const NEIGHBOURLY: Partial<ResponderPolicy> = { publicKeyOf: () => GUEST.credential.publicKey }
const AS_GUEST: Partial<InitiateRequest> = { credential: GUEST.credential, requestAddress: false }

/** Connected and renewed by both sides, checked once, and closed one Child SA after the other. */
function wholeLife(stage: Pair, request: Partial<InitiateRequest>): void {
  const { network, client, node } = stage
  const ours = connect(stage, { liveness: 30 * SECOND, ...request })
  const theirs = find(node, 'ike.established')!.sa
  client.engine.rekeyChild(ours, client.sending.get(ours)!.inboundSpi, network.now)
  network.run(SECOND)
  node.engine.rekeyChild(theirs, node.sending.get(theirs)!.inboundSpi, network.now)
  network.run(SECOND)
  client.engine.rekeyIke(ours, network.now)
  network.run(SECOND)
  node.engine.rekeyIke(theirs, network.now)
  network.run(40 * SECOND)
  client.engine.closeChild(ours, client.sending.get(ours)!.inboundSpi, network.now)
  network.run(SECOND)
  node.engine.close(theirs, network.now)
  network.run(SECOND)
}

/** Connected, and closed by the client if there is anything to close. */
function shortLife(stage: Pair, request: Partial<InitiateRequest> = {}): void {
  const id = connect(stage, request)
  stage.client.engine.close(id, stage.network.now)
  stage.network.run(SECOND)
}

const copyOf = (ticket: ResumptionTicket): ResumptionTicket => ({
  ...ticket,
  opaque: ticket.opaque.slice(),
  skD: ticket.skD.slice(),
})

const SCENES: Readonly<Record<string, Scene>> = {
  classic: { play: (stage) => wholeLife(stage, { hybrid: false }) },
  hybrid: { play: (stage) => wholeLife(stage, {}) },
  chacha: { play: (stage) => shortLife(stage, { hybrid: false, espCiphers: ['chacha20-poly1305'] }) },
  'published key': {
    options: { policy: { publishedKey: PUBLISHED } },
    play: (stage) => shortLife(stage, { credential: { kind: 'psk', key: PUBLISHED } }),
  },
  'node to node': {
    options: { policy: NEIGHBOURLY },
    play: (stage) => shortLife(stage, AS_GUEST),
  },
  cookie: { options: { limits: { cookieAt: 0 } }, play: shortLife },
  puzzle: { options: { limits: { cookieAt: 0, puzzleAt: 0 } }, play: shortLife },
  resumption: {
    options: { policy: RESUMABLE },
    play(stage) {
      const { network, client } = stage
      const first = connect(stage, { resume: {} })
      network.run(SECOND)
      const ticket = copyOf(find(client, 'ticket')!.ticket)
      client.engine.abandon(first)
      const second = connect(stage, { resume: { ticket: copyOf(ticket) } })
      network.run(10 * SECOND)
      client.engine.close(second, network.now, { toReturn: true })
      network.run(SECOND)
      // The ticket is spent: TICKET_NACK, and everything anew.
      shortLife(stage, { resume: { ticket } })
    },
  },
  mobike: {
    options: { policy: { mayMove: () => true } },
    play(stage) {
      const { network, client } = stage
      const id = connect(stage, { mobile: true })
      network.bind(CLIENT, undefined)
      network.bind(ELSEWHERE, `${CLIENT}`)
      client.engine.move(id, ELSEWHERE, network.now)
      network.run(SECOND)
      client.engine.close(id, network.now)
      network.run(SECOND)
    },
  },
  'a stranger': { play: (stage) => shortLife(stage, AS_GUEST) },
  'no address left': { options: { policy: { lease: () => undefined } }, play: shortLife },
  'no common cipher': {
    options: { policy: { espCiphers: ['aes-128-gcm-16'] } },
    play: shortLife,
  },
}

/** Plays all of them. */
export const recompute = (): Golden[] => Object.entries(SCENES).map(([name, scene]) => play(name, scene))

function play(name: string, { options, play }: Scene): Golden {
  const stage = pair({ ...options, seed: 1, keyLog: true })
  play(stage)
  const keys = stage.client.events.flatMap((event) =>
    event.kind === 'keys' ? [{ cipher: event.cipher, skEi: toHex(event.skEi), skEr: toHex(event.skEr) }] : [],
  )
  const opener = new Opener(keys)
  return { name, keys, messages: stage.network.sent.map((datagram) => messageOf(datagram, opener)) }
}

function messageOf(datagram: Datagram, opener: Opener): GoldenMessage {
  const { source, destination, bytes } = datagram
  const opened = opener.open(pathOf(datagram), bytes)
  return {
    from: source.address === NODE ? 'node' : 'client',
    ports: [source.port, destination.port],
    what: titleOf(opened),
    hex: toHex(bytes),
  }
}

// ---------------------------------------------------------------------------------------------- reading them

export interface OpenedDatagram {
  /** Without the marker of port 4500. */
  readonly datagram: Uint8Array
  readonly outer: readonly Payload[]
  /** Inside SK, if there is one: payloads and their octets. Undefined: there is more to come, or nothing inside. */
  readonly inner?: { readonly payloads: readonly Payload[]; readonly octets: Uint8Array }
}

/** Whoever has the keys reads everything. */
export class Opener {
  readonly #keys: readonly (readonly MessageKey[])[]
  readonly #halves = new Map<string, Reassembly>()

  constructor(keys: Golden['keys']) {
    this.#keys = keys.map(({ cipher, skEi, skEr }) =>
      [skEr, skEi].map((hex) => new MessageKey(nodeCrypto, cipher, Buffer.from(hex, 'hex'))),
    )
  }

  /** @throws Error when no key fits */
  open(path: UdpPath, bytes: Uint8Array): OpenedDatagram {
    const datagram = unframe(path, bytes)
    if (datagram === undefined) throw new Error('a keepalive')
    const header = decodeHeader(datagram)
    const outer = decodePayloads(header.firstPayload, datagram.subarray(HEADER_LENGTH), 'outer')
    const sk = outer.at(-1)
    if (sk?.kind !== 'SK' && sk?.kind !== 'SKF') return { datagram, outer }
    const fragment = sk.kind === 'SKF' ? readFragmentOf(sk.data) : undefined
    const sealed = sk.data.length - (fragment === undefined ? 0 : FRAGMENT_HEADER_LENGTH)
    const side = header.fromInitiator ? 1 : 0
    const plaintext = this.#keys
      .map((pair) => pair[side]!.open(datagram, sealed))
      .find((each) => each !== undefined)
    if (plaintext === undefined) throw new Error(`no key for ${EXCHANGE.nameOf(header.exchange)}`)
    const which = `${toHex(header.spiInitiator)} ${header.response} ${header.fromInitiator}`
    const half = this.#halves.get(which) ?? new Reassembly()
    this.#halves.set(which, half)
    const front = datagram.subarray(0, datagram.length - sk.data.length)
    const piece = {
      firstPayload: sk.inner,
      plaintext,
      front,
      ...(fragment === undefined ? {} : { fragment }),
    }
    const whole = half.take(header.messageId, piece, new Uint8Array(0), 0 as never)
    if (whole === undefined) return { datagram, outer }
    const payloads = decodePayloads(whole.firstPayload, whole.plaintext, 'inner')
    return { datagram, outer, inner: { payloads, octets: whole.plaintext } }
  }
}

/** `IKE_AUTH 1 request: SK{ IDi IDr AUTH CP SA TSi TSr N(SUPPORTED_AUTH_METHODS) }` */
export function titleOf({ datagram, outer, inner }: OpenedDatagram): string {
  const { exchange, messageId, response } = decodeHeader(datagram)
  const names = outer.map((payload) => {
    if (payload.kind !== 'SK' && payload.kind !== 'SKF') return nameOf(payload)
    return `${payload.kind}{ ${inner?.payloads.map(nameOf).join(' ') ?? '...'} }`
  })
  return `${EXCHANGE.nameOf(exchange)} ${messageId} ${response ? 'response' : 'request'}: ${names.join(' ')}`
}

const nameOf = (payload: Payload): string =>
  payload.kind === 'Notify' ? `N(${NOTIFY.nameOf(payload.type)})` : payload.kind

// ---------------------------------------------------------------------------------------------- writing them

/** A line for each message, so that a difference is one of lines. */
function textOf(all: readonly Golden[]): string {
  const lines = (rows: readonly unknown[]): string =>
    `[\n${rows.map((row) => `      ${JSON.stringify(row)}`).join(',\n')}\n    ]`
  const scenes = all.map(
    ({ name, keys, messages }) =>
      `  {\n    "name": ${JSON.stringify(name)},\n    "keys": ${lines(keys)},\n    "messages": ${lines(messages)}\n  }`,
  )
  return `[\n${scenes.join(',\n')}\n]\n`
}

if (import.meta.main && process.argv.includes('--write')) writeFileSync(FILE, textOf(recompute()))
