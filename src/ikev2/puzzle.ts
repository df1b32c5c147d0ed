/**
 * Puzzles (RFC 8019): under attack a responder lets an initiator work before it works itself.
 *
 *     N(PUZZLE)   PRF (2) | difficulty (1)                           beside N(COOKIE)
 *     PS          four keys of one length, one behind the other      behind N(COOKIE) in the next request
 *
 * A solution is four different keys whose prf(key, cookie) ends with `difficulty` zero bits each: four make the work more
 * even than one. An initiator works in small steps between other things, and not for any difficulty: a puzzle is as
 * unprotected as the rest of IKE_SA_INIT. One that is too hard is left unsolved and the cookie returned alone, which a
 * responder may accept now and then.
 */
import { toHex } from '#base/bytes'
import type { CryptoProvider, HashName } from '#crypto/provider'
import { malformed } from '#ikev2/fault'
import { type NotifyPayload, notify, type Payload } from '#ikev2/message/payload'
import type { Proposal } from '#ikev2/message/proposal'
import { find, notifies } from '#ikev2/message/registry'
import { NOTIFY, PRF, TRANSFORM } from '#ikev2/numbers'
import { Reader, Writer } from '#wire/cursor'

export interface Puzzle {
  readonly hash: HashName
  /** Zero bits that each prf must end with. */
  readonly difficulty: number
}

/** About 0.3 s of one core: four times 2^16 HMACs. */
export const MOST_DIFFICULT = 16

/** A puzzle with a PRF that the initiator offered; undefined: it has none of ours, and gets none. */
export function puzzleFor(proposals: readonly Proposal[], difficulty: number): NotifyPayload | undefined {
  const offered = new Set(
    proposals.flatMap(({ transforms }) =>
      transforms.filter(({ type }) => type === PRF_TYPE).map(({ id }) => id),
    ),
  )
  const prf = [...HASHES.keys()].find((id) => offered.has(id))
  if (prf === undefined) return undefined
  return notify(NOTIFY.number.PUZZLE, new Writer(PUZZLE_LENGTH).u16(prf).u8(difficulty).finish())
}

/** The puzzle in an answer, if it is one that is worth solving. @throws PeerFault when it is none */
export function readPuzzle(payloads: readonly Payload[]): Puzzle | 'too hard' | undefined {
  const [puzzle] = notifies(payloads, NOTIFY.number.PUZZLE)
  if (puzzle === undefined) return undefined
  if (puzzle.data.length !== PUZZLE_LENGTH) throw malformed(`a puzzle of ${puzzle.data.length} octets`)
  const reader = new Reader(puzzle.data)
  const hash = HASHES.get(reader.u16())
  const difficulty = reader.u8()
  if (hash === undefined || difficulty > MOST_DIFFICULT) return 'too hard'
  // Section 7.1.1.1: 0 leaves it to the initiator.
  return { hash, difficulty: difficulty === 0 ? OWN_CHOICE : difficulty }
}

/** Has the request a solution of this puzzle for this cookie? */
export function solvesPuzzle(
  crypto: CryptoProvider,
  payloads: readonly Payload[],
  { hash, difficulty }: Puzzle,
  cookie: Uint8Array,
): boolean {
  const data = find(payloads, 'PS')?.data
  if (data === undefined || data.length % KEYS !== 0 || data.length > KEYS * MAX_KEY) return false
  const length = data.length / KEYS
  if (length === 0) return false
  const keys = Array.from({ length: KEYS }, (_, i) => data.subarray(i * length, (i + 1) * length))
  if (new Set(keys.map(toHex)).size !== KEYS) return false
  return keys.every((key) => trailingZeros(crypto.hmac(hash, key, cookie)) >= difficulty)
}

/** The PRF that a responder's puzzle named, for an initiator with these proposals. */
export function hashFor(proposals: readonly Proposal[]): HashName | undefined {
  const puzzle = puzzleFor(proposals, 1)
  return puzzle === undefined ? undefined : HASHES.get(new Reader(puzzle.data).u16())
}

/** Looks for the four keys, a few at a time. */
export class PuzzleSolver {
  readonly cookie: Uint8Array
  readonly #crypto: CryptoProvider
  readonly #puzzle: Puzzle
  readonly #key: Uint8Array
  readonly #found: Uint8Array[] = []
  #tried = 0

  constructor(crypto: CryptoProvider, puzzle: Puzzle, cookie: Uint8Array) {
    this.#crypto = crypto
    this.#puzzle = puzzle
    this.cookie = cookie
    // Where the search begins is random, so that nobody prepares cookies that are hard to solve.
    this.#key = crypto.random(KEY)
  }

  /** Tries so many keys. The solution; 'pending' without one; or undefined when there seems to be none. */
  step(tries: number): Uint8Array | 'pending' | undefined {
    const { hash, difficulty } = this.#puzzle
    const counter = new DataView(this.#key.buffer, KEY - 4)
    for (let i = 0; i < tries; i++) {
      counter.setUint32(0, this.#tried++)
      if (trailingZeros(this.#crypto.hmac(hash, this.#key, this.cookie)) < difficulty) continue
      this.#found.push(this.#key.slice())
      if (this.#found.length < KEYS) continue
      const solution = new Writer(KEYS * KEY)
      for (const key of this.#found) solution.bytes(key)
      return solution.finish()
    }
    return this.#tried > PERSEVERANCE * KEYS * 2 ** difficulty ? undefined : 'pending'
  }
}

/** Zero bits at the end. */
function trailingZeros(octets: Uint8Array): number {
  let zeros = 0
  for (let i = octets.length - 1; i >= 0; i--) {
    const octet = octets[i]!
    if (octet !== 0) return zeros + 31 - Math.clz32(octet & -octet)
    zeros += 8
  }
  return zeros
}

const PRF_TYPE = TRANSFORM.number.PRF
const PUZZLE_LENGTH = 3
/** RFC 8019 section 7.1.1.1. */
const KEYS = 4

const HASHES: ReadonlyMap<number, HashName> = new Map([
  [PRF.number.HMAC_SHA2_256, 'sha256'],
  [PRF.number.HMAC_SHA2_384, 'sha384'],
  [PRF.number.HMAC_SHA2_512, 'sha512'],
])

// Ours: what nothing prescribes.
const KEY = 8
const MAX_KEY = 64
const OWN_CHOICE = 8
/** Beyond so many times the work that is to be expected, something is wrong with the puzzle. */
const PERSEVERANCE = 32
