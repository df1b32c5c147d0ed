/**
 * The way from one document to a later one. Most of a document is what it was an hour ago, so a reader that has the
 * older one is sent what to copy from it and what is new. Pure; it knows nothing of what the documents say.
 *
 *     diff  = "ippriv diff 1 " base SP target SP length LF *edit
 *     edit  = copy SP skip SP insert LF <insert octets>
 *
 * `base` and `target` are SHA-256 in hex, `length` is that of the target. An edit copies so many octets of the base,
 * leaves out the next so many, and inserts what follows: it only ever goes forward in the base, for both documents
 * have their nodes in one order. Numbers have no leading zeroes, and an edit that could be part of its neighbour is
 * refused: one list of edits has one spelling.
 *
 * A diff is not signed. What comes out is a document like any other, which must verify; a bad diff costs its
 * reader one request more.
 */
import { toHex, utf8 } from '#base/bytes'
import { failure, type Result, success } from '#base/result'
import type { CryptoProvider } from '#crypto/provider'

/** Octets of a diff that are read at most. One that is longer than its document would be sent in vain. */
export const MAX_DIFF = 8 * 1024 * 1024

/** Deterministic: the same two documents give the same octets. Both are printable ASCII. */
export function makeDiff(base: Uint8Array, target: Uint8Array, crypto: CryptoProvider): Uint8Array {
  const head = utf8(`${HEAD}${digest(base, crypto)} ${digest(target, crypto)} ${target.length}\n`)
  const parts = [head]
  const [from, to] = [cut(base), cut(target)]
  let copied = 0
  // Octets of base and target that are dealt with.
  let [behind, done] = [0, 0]
  const replace = (until: number, targetUntil: number): void => {
    const [skip, insert] = [until - behind, target.subarray(done, targetUntil)]
    if (skip === 0 && insert.length === 0) return
    parts.push(utf8(`${copied} ${skip} ${insert.length}\n`), insert)
    copied = 0
  }
  for (const run of commonRuns(from.pieces, to.pieces)) {
    const start = from.offsets[run.base]!
    replace(start, to.offsets[run.target]!)
    behind = from.offsets[run.base + run.count]!
    done = to.offsets[run.target + run.count]!
    copied += behind - start
  }
  replace(base.length, target.length)
  if (copied > 0) parts.push(utf8(`${copied} 0 0\n`))
  return joined(parts)
}

/**
 * The target, of `limit` octets at most. Errors: IPP_DIR_OVERSIZED, IPP_DIR_MALFORMED, IPP_DIR_DIFF (it is for another
 * base, or does not lead to the document it names).
 */
export function applyDiff(
  diff: Uint8Array,
  base: Uint8Array,
  limit: number,
  crypto: CryptoProvider,
): Result<Uint8Array> {
  if (diff.length > MAX_DIFF) return oversized(`${diff.length} octets, at most ${MAX_DIFF} are allowed`)
  const head = lineAt(diff, 0, HEAD_LIMIT)
  const named = head === undefined ? null : HEAD_LINE.exec(head)
  if (head === undefined || named === null) return malformed('the first line is not in the right form')
  const length = Number(named[3])
  if (length > limit) return oversized(`it leads to ${length} octets, at most ${limit} are allowed`)
  if (named[1] !== digest(base, crypto)) return failure('IPP_DIR_DIFF', 'diff: it is for another base')
  const target = new Uint8Array(length)
  let [at, behind, done] = [head.length + 1, 0, 0]
  let isLast = false
  for (let edit = 1; at < diff.length; edit++) {
    const line = lineAt(diff, at, EDIT_LIMIT)
    const numbers = line === undefined ? null : EDIT_LINE.exec(line)
    if (line === undefined || numbers === null) return malformed(`edit ${edit} is not in the right form`)
    const [copy, skip, insert] = [Number(numbers[1]), Number(numbers[2]), Number(numbers[3])]
    if (isLast || (copy === 0 && edit > 1) || copy + skip + insert === 0)
      return malformed(`edit ${edit} is part of the one before`)
    isLast = skip + insert === 0
    at += line.length + 1
    if (behind + copy + skip > base.length) return malformed(`edit ${edit} leaves the base`)
    if (done + copy + insert > length) return malformed(`edit ${edit} leaves the target`)
    if (at + insert > diff.length) return malformed(`edit ${edit} is cut off`)
    target.set(base.subarray(behind, behind + copy), done)
    target.set(diff.subarray(at, at + insert), done + copy)
    at += insert
    behind += copy + skip
    done += copy + insert
  }
  if (behind !== base.length || done !== length) return malformed('the edits end too early')
  if (named[2] !== digest(target, crypto))
    return failure('IPP_DIR_DIFF', 'diff: it does not lead to the document it names')
  return success(target)
}

const HEAD = 'ippriv diff 1 '
const HEAD_LINE = /^ippriv diff 1 ([0-9a-f]{64}) ([0-9a-f]{64}) (0|[1-9]\d{0,8})$/
const HEAD_LIMIT = HEAD.length + 64 + 1 + 64 + 1 + 9
const EDIT_LINE = /^(0|[1-9]\d{0,8}) (0|[1-9]\d{0,8}) (0|[1-9]\d{0,8})$/
const EDIT_LIMIT = 3 * 9 + 2
const LF = 0x0a

const digest = (bytes: Uint8Array, crypto: CryptoProvider): string => toHex(crypto.hash('sha256', bytes))

/** The line that begins there, without its end; undefined when it is longer than that, or never ends. */
function lineAt(bytes: Uint8Array, start: number, limit: number): string | undefined {
  const end = bytes.subarray(start, start + limit + 1).indexOf(LF)
  return end < 0 ? undefined : String.fromCharCode(...bytes.subarray(start, start + end))
}

/** They may be more than a call takes arguments. */
function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

interface Pieces {
  readonly pieces: readonly string[]
  /** Where each begins, and where the last one ends. */
  readonly offsets: readonly number[]
}

/** Cut behind every comma: one value of JSON is one piece. */
function cut(document: Uint8Array): Pieces {
  const text = new TextDecoder('latin1').decode(document)
  const pieces: string[] = []
  const offsets = [0]
  for (let start = 0; start < text.length; ) {
    const comma = text.indexOf(',', start)
    const end = comma < 0 ? text.length : comma + 1
    pieces.push(text.slice(start, end))
    offsets.push(end)
    start = end
  }
  return { pieces, offsets }
}

interface Run {
  readonly base: number
  readonly target: number
  readonly count: number
}

/**
 * Runs of equal pieces, in ascending order of both sides. Pieces that stand once in each document (keys, signatures)
 * show where it goes on, and the runs grow from there: a patience diff, in time that hardly more than the length
 * decides.
 */
function commonRuns(base: readonly string[], target: readonly string[]): Run[] {
  const runs: Run[] = []
  let [i, j] = [0, 0]
  for (const anchor of [...anchors(base, target), { base: base.length, target: target.length }]) {
    if (anchor.base < i || anchor.target < j) continue
    const ahead = equal(base, target, i, j, anchor.base - i, anchor.target - j)
    if (ahead > 0) runs.push({ base: i, target: j, count: ahead })
    const [a, b] = [i + ahead, j + ahead]
    let back = 0
    const room = Math.min(anchor.base - a, anchor.target - b)
    while (back < room && base[anchor.base - back - 1] === target[anchor.target - back - 1]) back++
    ;[i, j] = [anchor.base - back, anchor.target - back]
    const count = back + equal(base, target, anchor.base, anchor.target)
    if (count > 0) runs.push({ base: i, target: j, count })
    ;[i, j] = [i + count, j + count]
  }
  return runs
}

/** How many pieces from there on are equal. */
function equal(
  base: readonly string[],
  target: readonly string[],
  i: number,
  j: number,
  most = base.length - i,
  mostOfTarget = target.length - j,
): number {
  let count = 0
  const room = Math.min(most, mostOfTarget)
  while (count < room && base[i + count] === target[j + count]) count++
  return count
}

interface Anchor {
  readonly base: number
  readonly target: number
}

/** Pieces that both have once, as many as there are in one order on both sides. */
function anchors(base: readonly string[], target: readonly string[]): Anchor[] {
  const [of, to] = [positions(base), positions(target)]
  const shared: Anchor[] = []
  for (const [piece, place] of to) {
    const start = of.get(piece)
    if (place >= 0 && start !== undefined && start >= 0) shared.push({ base: start, target: place })
  }
  return longestAscending(shared)
}

/** Where a piece stands; -1: in several places. In the order of the document. */
function positions(pieces: readonly string[]): Map<string, number> {
  const found = new Map<string, number>()
  for (const [i, piece] of pieces.entries()) found.set(piece, found.has(piece) ? -1 : i)
  return found
}

/** The longest part that ascends on the base's side too (patience sorting). */
function longestAscending(shared: readonly Anchor[]): Anchor[] {
  // The last of each pile, and of each card the one before it in the pile to the left.
  const piles: number[] = []
  const before: (number | undefined)[] = []
  for (const [card, { base }] of shared.entries()) {
    let [low, high] = [0, piles.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (shared[piles[middle]!]!.base < base) low = middle + 1
      else high = middle
    }
    before.push(piles[low - 1])
    piles[low] = card
  }
  const chosen: Anchor[] = []
  for (let card = piles.at(-1); card !== undefined; card = before[card]) chosen.push(shared[card]!)
  return chosen.reverse()
}

const malformed = (where: string) => failure('IPP_DIR_MALFORMED', `diff: ${where}`)
const oversized = (where: string) => failure('IPP_DIR_OVERSIZED', `diff: ${where}`)
