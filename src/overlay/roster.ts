/**
 * The nodes of one consensus as numbers, made once when it comes, so that paths are chosen from it in microseconds:
 * what each node can be, whom it must not meet, and with which chance it is drawn for a position.
 *
 * A node is drawn for a position in proportion to its bandwidth there (`position-weights.ts`). Flags count where
 * anybody has them: in a young network without a single guard every node that wants to be an entry is one.
 */
import { toHex } from '#base/bytes'
import { ipToUint32 } from '#base/ip'
import { fraction, type Rng } from '#base/rng'
import type { Consensus, ConsensusNode, NodeFlag } from '#directory/documents'
import { formatExitRule } from '#nat/exit-policy'
import type { ExitPolicy } from '#nat/rules'
import { BIT, MASKS, type Place, shareBandwidth } from '#overlay/position-weights'

/** Kilobits per second that a node counts with before enough have measured it: enough to be tried, no more. */
export const UNMEASURED = 256

/** Draws that may fail before all nodes are looked at. */
const DRAWS = 48
/** Relative to its full weight: a node that is not needed in a position can still stand there when no other can. */
const LEAST_SHARE = 1e-9

export class Roster {
  readonly consensus: Consensus
  readonly nodes: readonly ConsensusNode[]
  /** Bits of positions, by index. */
  readonly places: Uint8Array
  /** The /16, by index. */
  readonly networks: Uint16Array
  /** 0: of no family. */
  readonly families: Uint32Array
  /** Exit policies by number; most nodes have the same few. */
  readonly policies: readonly ExitPolicy[]
  readonly policyOf: Uint32Array
  readonly #weights: Readonly<Record<Place, Float64Array>>
  readonly #cumulative: Readonly<Record<Place, Float64Array>>
  readonly #byName = new Map<string, number>()

  constructor(consensus: Consensus) {
    const { nodes } = consensus
    this.consensus = consensus
    this.nodes = nodes
    this.places = placesOf(nodes)
    this.networks = Uint16Array.from(nodes, ({ address }) => ipToUint32(address) >>> 16)
    this.families = numbered(nodes, ({ family }) => (family === undefined ? '' : toHex(family.key)), ['']).of
    const policies = numbered(nodes, ({ exitPolicy }) => exitPolicy.map(formatExitRule).join())
    this.policyOf = policies.of
    this.policies = policies.firsts.map((index) => nodes[index]!.exitPolicy)
    const bandwidth: number[] = new Array(MASKS).fill(0)
    for (const [i, node] of nodes.entries())
      bandwidth[this.places[i]!] = bandwidth[this.places[i]!]! + (node.bandwidth ?? UNMEASURED)
    const shares = shareBandwidth(bandwidth)
    const weightsAt = (place: Place): Float64Array =>
      Float64Array.from(nodes, ({ bandwidth = UNMEASURED }, i) => {
        const mask = this.places[i]!
        // A node that was measured to be all but dead can still be the only one.
        return (mask & BIT[place]) === 0
          ? 0
          : Math.max(1, bandwidth) * Math.max(LEAST_SHARE, shares[mask]![place])
      })
    this.#weights = { entry: weightsAt('entry'), middle: weightsAt('middle'), exit: weightsAt('exit') }
    const { entry, middle, exit } = this.#weights
    this.#cumulative = { entry: sums(entry), middle: sums(middle), exit: sums(exit) }
    for (const [i, { name, nodeId }] of nodes.entries()) this.#byName.set(name, i).set(nodeId, i)
  }

  /** By name or node id, which cannot be taken for each other: names are shorter. */
  find(nameOrId: string): number | undefined {
    return this.#byName.get(nameOrId)
  }

  /** Proportional to the chance of being drawn for that place; 0: it cannot stand there. */
  weight(index: number, place: Place): number {
    return this.#weights[place][index]!
  }

  /** Must these two not be in one path? With `sameNetwork` a common /16 does not matter. */
  conflict(a: number, b: number, sameNetwork: boolean): boolean {
    if (a === b) return true
    if (!sameNetwork && this.networks[a] === this.networks[b]) return true
    return this.families[a] !== 0 && this.families[a] === this.families[b]
  }

  /** One of those that `accepts`, by weight. Undefined: there is none. */
  draw(place: Place, rng: Rng, accepts: (index: number) => boolean): number | undefined {
    const cumulative = this.#cumulative[place]
    const total = cumulative.at(-1) ?? 0
    if (total === 0) return undefined
    for (let i = 0; i < DRAWS; i++) {
      const index = above(cumulative, fraction(rng) * total)
      if (accepts(index)) return index
    }
    // Few are acceptable. What was drawn and refused so far does not change the chances among them.
    const weights = this.#weights[place]
    const left: number[] = []
    let sum = 0
    for (let i = 0; i < weights.length; i++)
      if (weights[i]! > 0 && accepts(i)) {
        left.push(i)
        sum += weights[i]!
      }
    let at = fraction(rng) * sum
    for (const index of left) {
      at -= weights[index]!
      if (at < 0) return index
    }
    return left.at(-1)
  }
}

function placesOf(nodes: readonly ConsensusNode[]): Uint8Array {
  const has = (flag: NodeFlag) => nodes.some(({ flags }) => flags?.includes(flag))
  const needed: readonly (readonly [Place, NodeFlag | undefined])[] = [
    ['entry', has('guard') ? 'guard' : undefined],
    ['middle', has('fast') ? 'fast' : undefined],
    ['exit', has('exit') ? 'exit' : undefined],
  ]
  return Uint8Array.from(nodes, ({ roles, flags }) => {
    let mask = 0
    if (flags !== undefined && !(flags.includes('running') && flags.includes('valid'))) return mask
    for (const [place, flag] of needed)
      if (roles.includes(place) && (flag === undefined || flags?.includes(flag))) mask |= BIT[place]
    return mask
  })
}

/** Gives equal keys equal numbers, in order of appearance; `known` have the first ones. */
function numbered(
  nodes: readonly ConsensusNode[],
  keyOf: (node: ConsensusNode) => string,
  known: readonly string[] = [],
): { readonly of: Uint32Array; readonly firsts: readonly number[] } {
  const numbers = new Map<string, number>(known.map((key, i) => [key, i]))
  const firsts: number[] = []
  const of = Uint32Array.from(nodes, (node, index) => {
    const key = keyOf(node)
    const number = numbers.get(key) ?? numbers.size
    if (!numbers.has(key)) {
      numbers.set(key, number)
      firsts.push(index)
    }
    return number
  })
  return { of, firsts }
}

function sums(weights: Float64Array): Float64Array {
  let sum = 0
  return weights.map((weight) => (sum += weight))
}

/** The first index whose sum is above `value`; one with weight 0 never is the first. */
function above(cumulative: Float64Array, value: number): number {
  let [low, high] = [0, cumulative.length - 1]
  while (low < high) {
    const middle = (low + high) >> 1
    if (cumulative[middle]! > value) high = middle
    else low = middle + 1
  }
  return low
}
