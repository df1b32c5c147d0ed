/**
 * What a measurer found, signed by it. The only reader and writer of reports; pure.
 *
 *     {"version":1,"published":1767225600,"nodes":[["<node id>",81920],...]}
 *
 * A figure is what went through the node in kilobits per second; 0: it could not be reached, or nothing came through.
 */
import { Type } from 'typebox'
import { Compile } from 'typebox/compile'
import type { NodeId } from '#base/ids'
import { failure, type Result, success } from '#base/result'
import type { UnixTime } from '#base/time'
import type { CryptoProvider, KeyPair } from '#crypto/provider'
import { openSigned, sealDocument } from '#directory/canonical'
import type { NodeDescriptor } from '#directory/documents'
import { lowMedian } from '#directory/parameters'
import { Moment, schemaProblem } from '#directory/schemas'

/** The last word of one measurer about one node. */
export interface Figure {
  /** Kilobits per second. */
  readonly bandwidth: number
  readonly at: UnixTime
}

export interface Measurement {
  readonly published: UnixTime
  readonly figures: ReadonlyMap<NodeId, number>
}

/** Figures of fewer measurers are no figure: of three, one may lie without being followed. */
export const FEWEST_MEASURERS = 3

/** Nothing is faster, so that sums stay exact and a figure fits in 32 bits: a terabit per second. */
export const MAX_BANDWIDTH = 1_000_000_000

/** Errors: IPP_DIR_MALFORMED, IPP_DIR_OVERSIZED. */
export function encodeMeasurement(
  { published, figures }: Measurement,
  measurer: KeyPair,
  crypto: CryptoProvider,
): Result<string> {
  const nodes = [...figures].sort(([a], [b]) => (a < b ? -1 : 1))
  const body = { version: 1, published, nodes }
  if (!validator.Check(body)) return malformed(schemaProblem(validator, body))
  return sealDocument('measurement', body, [measurer], crypto)
}

/** Errors: those of `openSigned`. */
export function decodeMeasurement(
  document: Uint8Array,
  measurers: readonly Uint8Array[],
  crypto: CryptoProvider,
): Result<Measurement> {
  const opened = openSigned('measurement', document, measurers, crypto)
  if (!opened.ok) return opened
  const { body } = opened.value
  if (!validator.Check(body)) return malformed(schemaProblem(validator, body))
  const figures = new Map<NodeId, number>()
  let previous = ''
  for (const [i, [node, bandwidth]] of body.nodes.entries()) {
    if (node <= previous) return malformed(`nodes[${i}]: not in ascending order of node ids, or named twice`)
    previous = node
    figures.set(node as NodeId, bandwidth)
  }
  return success({ published: body.published as UnixTime, figures })
}

/**
 * What a document says of a node's speed: the median of what its measurers found, and never more than the node itself
 * wants to carry. Its own figure can only lower it. Undefined: too few measured it.
 *
 * Rounded to three leading bits, in whole numbers, so that every authority gets the same and small changes are none.
 */
export function agreedBandwidth(
  figures: readonly number[],
  { declared }: Pick<NodeDescriptor, 'declared'>,
): number | undefined {
  if (figures.length < FEWEST_MEASURERS) return undefined
  return rounded(Math.min(lowMedian(figures), declared ?? MAX_BANDWIDTH))
}

/**
 * What is voted for when `figure` was measured and the last document says `listed`: the same again, unless they are
 * further apart than two measurements of one node often are. Or half of the network would change by the hour, and every
 * reader would fetch it.
 */
export const steadyFigure = (figure: number, listed: number | undefined): number =>
  listed !== undefined && Math.abs(figure - listed) * 4 <= listed ? listed : figure

function rounded(value: number): number {
  const shift = Math.max(0, 31 - Math.clz32(value) - 2)
  return ((value + ((1 << shift) >> 1)) >> shift) << shift
}

const Body = Type.Object(
  {
    version: Type.Literal(1),
    published: Moment,
    nodes: Type.Array(
      Type.Tuple([
        Type.String({ pattern: '^[0-9a-f]{64}$' }),
        Type.Integer({ minimum: 0, maximum: MAX_BANDWIDTH }),
      ]),
      { maxItems: 16_384 },
    ),
  },
  { additionalProperties: false },
)
const validator = Compile(Body)

const malformed = (where: string) => failure('IPP_DIR_MALFORMED', `measurement: ${where}`)
