/**
 * A make-believe network that lives: nodes come, go and change, all of them sign themselves anew every half an hour,
 * and a document is made each period by the rules of the authorities.
 */
import { randomBytes, randomInt } from 'node:crypto'
import { type Ip, uint32ToIp } from '#base/ip'
import { unwrap } from '#base/result'
import { type UnixTime, unixTime } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import type { KeyPair } from '#crypto/provider'
import { type ListedNode, signConsensus } from '#directory/consensus'
import { type DescriptorFields, encodeDescriptor } from '#directory/descriptor'
import type { Consensus, NodeFlag } from '#directory/documents'
import { joinFamily } from '#directory/family'
import { agreedBandwidth, steadyFigure } from '#directory/measurement'
import { DEFAULT_PARAMETERS } from '#directory/parameters'
import { freePools, type PoolPlan } from '#directory/pools'
import { listedWords, steadyWords } from '#directory/words'
import { DEFAULT_EXIT_POLICY, PROTECTED_DESTINATIONS } from '#nat/exit-policy'

export const PERIOD = 3600
/** A beginning of a period. */
export const START = unixTime(1_767_225_600)
/** Room for 16,384 nodes. */
export const PLAN: PoolPlan = { space: { address: '10.0.0.0' as Ip, length: 8 }, length: 22 }

export function newKeyPair(): KeyPair {
  const privateKey = randomBytes(32)
  return { privateKey, publicKey: nodeCrypto.ed25519PublicKey(privateKey) }
}

/** What an hour does to a network, in shares of its nodes. */
export interface Churn {
  readonly come: number
  readonly go: number
  /** Another address, port, policy or key. */
  readonly change: number
}

export interface Issue {
  readonly text: string
  readonly consensus: Consensus
}

interface Member {
  readonly identity: KeyPair
  readonly fields: DescriptorFields
  readonly node: ListedNode
  /** Kilobits per second it could carry, and what three measurers found the last time they looked. */
  readonly speed: number
  readonly figures: readonly number[]
}

export class LivingNetwork {
  readonly authorities: readonly KeyPair[]
  readonly #threshold: number
  #members: Member[]
  #last: Issue | undefined
  #hour = 0

  constructor(nodes: number, authorities: number, threshold: number) {
    this.authorities = Array.from({ length: authorities }, newKeyPair)
    this.#threshold = threshold
    const pools = freePools(PLAN, [], nodes)
    this.#members = pools.map((pool) => newMember(pool, START))
  }

  get nodes(): readonly ListedNode[] {
    return this.#members.map(({ node }) => node)
  }

  /** The document of the hour, signed by as many as must. */
  issue(): Issue {
    const now = this.now
    const listed = this.#last === undefined ? new Map() : listedWords(this.#last.text, this.#last.consensus)
    const draft = {
      serial: now / PERIOD,
      validAfter: now,
      period: PERIOD,
      poolSpace: PLAN.space,
      parameters: DEFAULT_PARAMETERS,
      nodes: steadyWords(this.nodes, listed, now),
    }
    const signers = this.authorities.slice(0, this.#threshold)
    this.#last = unwrap(signConsensus(draft, signers, nodeCrypto))
    return this.#last
  }

  /** An hour goes by. */
  pass({ come, go, change }: Churn): void {
    this.#hour++
    const now = this.now
    const count = this.#members.length
    const shuffled = this.#members.toSorted(() => randomInt(2) - 0.5)
    const stay = shuffled.slice(Math.round(go * count))
    const changed = Math.round(change * count)
    const pools = freePools(
      PLAN,
      stay.map(({ node }) => node.pool),
      Math.round(come * count),
    )
    this.#members = [
      ...stay.map((member, i) => renewed(member, i < changed ? differently(member.fields) : {}, now)),
      ...pools.map((pool) => newMember(pool, now)),
    ]
  }

  get now(): UnixTime {
    return unixTime(START + this.#hour * PERIOD)
  }
}

/** Every fourth is an exit, every eighth one with a policy of its own. */
function newMember(pool: ListedNode['pool'], now: UnixTime): Member {
  const identity = newKeyPair()
  const kind = randomInt(8)
  const fields: DescriptorFields = {
    ikeKey: newKeyPair().publicKey,
    name: `${WORDS[randomInt(WORDS.length)]}-${randomBytes(4).toString('hex')}`,
    address: newAddress(),
    port: 500,
    roles: kind < 2 ? ['entry', 'middle', 'exit'] : ['entry', 'middle'],
    exitPolicy: kind === 0 ? ownPolicy() : kind === 1 ? DEFAULT_EXIT_POLICY : [],
    published: now,
    software: `ippriv 0.${randomInt(1, 4)}.0`,
    ...(randomInt(10) === 0 ? { declared: 1000 * randomInt(1, 1000) } : {}),
    ...(randomInt(5) === 0 ? { family: joinFamily(identity.publicKey, anyFamily(), nodeCrypto) } : {}),
  }
  // One to a thousand megabits per second.
  const speed = Math.round(1000 ** (1 + randomInt(1000) / 1000))
  return member(identity, fields, pool, speed, [speed, speed, speed].map(measure))
}

/** What is measured differs by a tenth or so from one time to the next, and each measurer looks every third hour. */
const measure = (speed: number): number => Math.round((speed * randomInt(900, 1101)) / 1000)

const FAMILIES = Array.from({ length: 60 }, newKeyPair)
const anyFamily = (): KeyPair => FAMILIES[randomInt(FAMILIES.length)]!

function renewed(
  { identity, fields, node, speed, figures }: Member,
  changes: Partial<DescriptorFields>,
  now: UnixTime,
): Member {
  const published = unixTime(now - randomInt(PERIOD / 2))
  const measured = figures.map((figure) => (randomInt(3) === 0 ? measure(speed) : figure))
  return member(identity, { ...fields, ...changes, published }, node.pool, speed, measured, node.bandwidth)
}

function member(
  identity: KeyPair,
  fields: DescriptorFields,
  pool: ListedNode['pool'],
  speed: number,
  figures: readonly number[],
  listed?: number,
): Member {
  const signed = unwrap(encodeDescriptor(fields, identity, nodeCrypto))
  const voted = figures.map((figure) => steadyFigure(figure, listed))
  const bandwidth = agreedBandwidth(voted, signed.descriptor)
  const fast = (bandwidth ?? 0) > 20_000
  const flags: NodeFlag[] = [
    ...(fields.roles.includes('exit') ? (['exit'] as const) : []),
    ...(fast ? (['fast', 'guard'] as const) : []),
    ...(['running', 'stable', 'valid'] as const),
  ]
  const node = { ...signed, pool, flags, ...(bandwidth === undefined ? {} : { bandwidth }) }
  return { identity, fields, node, speed, figures }
}

function differently(fields: DescriptorFields): Partial<DescriptorFields> {
  const what = randomInt(4)
  if (what === 0) return { ikeKey: newKeyPair().publicKey }
  if (what === 1) return { port: randomInt(500, 60_000) }
  if (what === 2 && fields.roles.includes('exit')) return { exitPolicy: ownPolicy() }
  return { address: newAddress() }
}

const ownPolicy = (): DescriptorFields['exitPolicy'] => [
  ...PROTECTED_DESTINATIONS,
  ...Array.from({ length: randomInt(1, 6) }, () => {
    const port = randomInt(20, 9000)
    return {
      action: 'accept' as const,
      destination: { address: '0.0.0.0' as Ip, length: 0 },
      protocol: 'tcp' as const,
      ports: [port, port] as const,
    }
  }),
]

const newAddress = (): Ip =>
  uint32ToIp(
    ((randomInt(11, 100) << 24) | (randomInt(256) << 16) | (randomInt(256) << 8) | randomInt(1, 255)) >>> 0,
  )

const WORDS = ['alder', 'birch', 'cedar', 'dogwood', 'elm', 'fir', 'gorse', 'hazel', 'juniper', 'larch']
