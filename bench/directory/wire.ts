/** What a reader's socket carries: a client and a server as they are, and between them a wire that counts. */
import { connect, createServer, type Server, type Socket } from 'node:net'
import { promisify } from 'node:util'
import { constants, zstdCompress } from 'node:zlib'
import Fastify from 'fastify'
import { Agent } from 'undici'
import { unwrap } from '#base/result'
import { nodeCrypto } from '#crypto/node'
import { DirectoryClient } from '#directory/client'
import { Counters } from '#directory/counters'
import { preparePublication } from '#directory/publication'
import { consensusRoute } from '#directory/routes/consensus'
import { Shelf } from '#directory/shelf'
import { type Churn, LivingNetwork } from './network.ts'

export interface WireSample {
  readonly hour: number
  /** Octets of TCP, both ways, HTTP and all. */
  readonly wire: number
  readonly how: 'whole' | 'diff'
  readonly document: number
  /** The same step as stock zstd makes it with the old document as dictionary (RFC 9842). */
  readonly zstd: number
  /** From when a reader may ask until it uses the document. */
  readonly ms: number
}

/** One reader over some hours: at first whole, then an update each hour; `skip`: it sleeps, and comes at the end. */
export async function readHours(
  nodes: number,
  hours: number,
  churn: Churn,
  threshold: number,
  signal: AbortSignal,
): Promise<{ samples: WireSample[]; unchanged: number; late: WireSample }> {
  const network = new LivingNetwork(nodes, 5, threshold)
  const shelf = new Shelf(nodeCrypto)
  const app = Fastify()
  consensusRoute(app, shelf, new Counters())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const wire = await Wire.open((app.server.address() as { port: number }).port)
  const samples: WireSample[] = []
  try {
    const reader = () =>
      new DirectoryClient({
        urls: [wire.url],
        authorities: network.authorities.map(({ publicKey }) => publicKey),
        threshold,
        crypto: nodeCrypto,
        unixTime: () => network.now,
        dispatcher: new Agent({ connections: 1 }),
      })
    const [steady, sleeper] = [reader(), reader()]
    const fetch = async (client: DirectoryClient, hour: number, before: string): Promise<WireSample> => {
      const began = performance.now()
      wire.octets = 0
      const whole = client.counters.get('consensus.whole')
      const { kind } = unwrap(await client.fetchConsensus())
      const ms = performance.now() - began
      if (kind !== 'new') throw new Error('there was nothing new')
      const { text } = client.document!
      return {
        hour,
        wire: wire.octets,
        how: client.counters.get('consensus.whole') > whole ? 'whole' : 'diff',
        document: text.length,
        zstd: await asZstd(text, before),
        ms,
      }
    }
    for (let hour = 0; hour <= hours; hour++) {
      signal.throwIfAborted()
      if (hour > 0) network.pass(churn)
      const { text, consensus } = network.issue()
      const before = shelf.current === undefined ? '' : Buffer.from(shelf.current.body).toString('latin1')
      shelf.put(await preparePublication(text, consensus, nodeCrypto))
      samples.push(await fetch(steady, hour, before))
      if (hour === 0) unwrap(await sleeper.fetchConsensus())
    }
    wire.octets = 0
    unwrap(await steady.fetchConsensus())
    const unchanged = wire.octets
    return { samples, unchanged, late: await fetch(sleeper, hours, '') }
  } finally {
    wire.close()
    await app.close()
  }
}

async function asZstd(text: string, before: string): Promise<number> {
  const params = {
    [constants.ZSTD_c_compressionLevel]: 19,
    [constants.ZSTD_c_windowLog]: 24,
  }
  const dictionary = Buffer.from(before, 'latin1')
  const packed = await promisify(zstdCompress)(Buffer.from(text, 'latin1'), {
    params,
    ...(before === '' ? {} : { dictionary }),
  })
  return packed.length
}

class Wire {
  octets = 0
  readonly #sockets = new Set<Socket>()
  readonly #server: Server

  static async open(to: number): Promise<Wire> {
    const wire = new Wire(to)
    await new Promise<void>((ready) => wire.#server.listen(0, '127.0.0.1', ready))
    return wire
  }

  private constructor(to: number) {
    this.#server = createServer((near) => {
      const far = connect(to, '127.0.0.1')
      for (const [from, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from)
        from.on('data', (part: Buffer) => {
          this.octets += part.length
          other.write(part)
        })
        from.on('close', () => other.destroy())
        from.on('error', () => other.destroy())
      }
    })
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
  }
}
