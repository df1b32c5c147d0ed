/**
 * How fast nodes are, found out by using them: circuits of one and two hops through a node to a measuring server, and
 * what comes through. The circuits are those of a client daemon of our own that builds none by itself
 * (`circuit.onDemand`), so a node sees what it sees of any client.
 *
 * What counts is the best of two hops, where the node stands behind another whenever it can be exit: there it cannot know
 * for whom it works. One hop alone is the figure of a node that nobody else could be found for.
 */
import { get } from 'node:http'
import type { NodeId } from '#base/ids'
import { toError } from '#base/result'
import { type Rng, uniform } from '#base/rng'
import { unixTime } from '#base/time'
import type { SigningKey } from '#config/keys'
import { nodeCrypto } from '#crypto/node'
import type { NodeRole } from '#directory/documents'
import { encodeMeasurement } from '#directory/measurement'
import { controlRequest } from '#linux/control'

export interface Measured {
  readonly nodeId: NodeId
  readonly name: string
  readonly roles: readonly NodeRole[]
}

/** What a measurement needs of the world. */
export interface Track {
  /** A circuit through these nodes. Throws when there is none. */
  build(path: readonly NodeId[]): Promise<{ readonly id: number; readonly source: string }>
  /** Returns when it is gone. */
  close(id: number): Promise<void>
  /** Kilobits per second from this address of ours. */
  download(source: string): Promise<number>
}

/** Partners that are tried: the slowest of two hops is the figure, so one of them should be fast. */
const PARTNERS = 2

/** Kilobits per second; 0: nothing came through in any way. */
export async function measureNode(
  node: Measured,
  nodes: readonly Measured[],
  track: Track,
  rng: Rng,
): Promise<number> {
  const behind = node.roles.includes('exit')
  const partners = draw(
    nodes.filter(({ nodeId, roles }) => nodeId !== node.nodeId && roles.includes(behind ? 'entry' : 'exit')),
    PARTNERS,
    rng,
  )
  const paths = partners.map(({ nodeId }) => (behind ? [nodeId, node.nodeId] : [node.nodeId, nodeId]))
  const figures: number[] = []
  for (const path of paths) figures.push(await rateOf(path, track))
  const best = Math.max(0, ...figures)
  const alone = behind && node.roles.includes('entry')
  return best > 0 || !alone ? best : rateOf([node.nodeId], track)
}

async function rateOf(path: readonly NodeId[], track: Track): Promise<number> {
  let circuit: Awaited<ReturnType<Track['build']>>
  try {
    circuit = await track.build(path)
  } catch {
    // A node that cannot be reached has no speed: that is the finding.
    return 0
  }
  try {
    return Math.round(await track.download(circuit.source))
  } catch {
    return 0
  } finally {
    await track.close(circuit.id)
  }
}

/** So many of them, each at most once. */
function draw<T>(from: readonly T[], count: number, rng: Rng): T[] {
  const left = [...from]
  const drawn: T[] = []
  while (drawn.length < count && left.length > 0) drawn.push(...left.splice(uniform(rng, left.length), 1))
  return drawn
}

export interface Downloads {
  readonly url: string
  readonly seconds: number
  readonly connections: number
}

/** With the circuits of the client behind this control socket. */
export function clientTrack(socket: string, downloads: Downloads): Track {
  const open = async (): Promise<readonly { readonly id: number }[]> =>
    ((await controlRequest(socket, 'circuits.list')) as { circuits: { id: number }[] }).circuits
  return {
    async build(path) {
      const built = (await controlRequest(socket, 'circuits.build', { path })) as {
        readonly id: number
        readonly privateAddresses: readonly string[]
      }
      return { id: built.id, source: built.privateAddresses.at(-1)! }
    },
    async close(id) {
      await controlRequest(socket, 'circuits.close', { id })
      // The next one may enter elsewhere only when nothing is left of this one.
      for (let i = 0; i < 100 && (await open()).some((circuit) => circuit.id === id); i++) await pause(100)
    },
    download: (source) => downloadRate(source, downloads),
  }
}

/**
 * Several connections at once, so that one lost packet does not decide; what came before the first half second is not
 * counted, in which connections only get going. Kilobits per second.
 * @throws when no connection gets an answer
 */
export async function downloadRate(
  source: string,
  { url, seconds, connections }: Downloads,
): Promise<number> {
  const began = performance.now()
  const from = began + 500
  const until = began + 1000 * seconds
  let octets = 0
  const one = () =>
    new Promise<void>((resolve, reject) => {
      const request = get(url, { localAddress: source, agent: false }, (response) => {
        response.on('data', (chunk: Buffer) => {
          if (performance.now() >= from) octets += chunk.length
        })
        response.once('end', resolve)
        response.once('error', () => resolve())
      })
      request.once('error', reject)
      setTimeout(() => {
        resolve()
        request.destroy()
      }, until - performance.now())
    })
  const outcomes = await Promise.allSettled(Array.from({ length: connections }, one))
  const failed = outcomes.find((outcome) => outcome.status === 'rejected')
  if (octets === 0 && failed !== undefined) throw failed.reason
  const ended = Math.min(performance.now(), until)
  return ended <= from ? (8 * octets) / 500 : (8 * octets) / (ended - from)
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms))

/** The report of this moment. @throws IpprivError */
export function signReport(figures: ReadonlyMap<NodeId, number>, measurer: SigningKey): string {
  const published = unixTime(Date.now() / 1000)
  const pair = { privateKey: measurer.seed, publicKey: measurer.publicKey }
  const report = encodeMeasurement({ published, figures }, pair, nodeCrypto)
  if (!report.ok) throw toError(report)
  return report.value
}
