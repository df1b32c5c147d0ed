/**
 * A responder of ours as a process: the engine with real sockets, and a policy that takes everybody. No data plane:
 * the Child SAs are announced and forgotten. Told by IPC what to do; runs with --expose-gc.
 *
 *     bench -> responder   { seed, address, port, workers }     once
 *     bench -> responder   'memory'
 *     responder -> bench   'ready', { heap, sas }
 */
import { fromHex, wipe } from '#base/bytes'
import { type Ip, ip, ipToUint32, uint32ToIp } from '#base/ip'
import { HOUR, instant } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { HandshakeWorkers } from '#daemon/handshake-workers'
import { IkeEngine } from '#ikev2/engine'
import type { ResponderPolicy } from '#ikev2/events'
import { nativeCrypto } from '#linux/native-crypto'
import { UdpSockets } from '#linux/sockets'

export interface ResponderSettings {
  readonly seed: string
  readonly address: Ip
  readonly port: number
  /** Threads for handshakes; 0: all is done in one. */
  readonly workers: number
}

export interface ResponderMemory {
  /** Octets of heap after a collection, without what is outside of it. */
  readonly heap: number
  /** And with it: array buffers, which hold all keys and messages. */
  readonly whole: number
  readonly sas: number
}

process.once('message', (settings) => serve(settings as ResponderSettings))

/**
 * All initiators are one neighbourhood, and none may have more than half of the IKE SAs there may be: room for the ten
 * thousand that are measured.
 */
const LIMITS = { sas: 40_000 }

function serve({ seed, address, port, workers }: ResponderSettings): void {
  const privateKey = fromHex(seed)
  const publicKey = nodeCrypto.ed25519PublicKey(privateKey)
  const id = { type: 11, data: nodeCrypto.hash('sha256', publicKey) }
  const base = ipToUint32(ip('10.128.0.0'))
  let lent = 0
  const responder: ResponderPolicy = {
    credential: { kind: 'ed25519', id, privateKey, publicKey },
    espCiphers: ['aes-256-gcm-16', 'chacha20-poly1305'],
    admitAnonymous: () => undefined,
    publicKeyOf: () => undefined,
    lease: () => uint32ToIp(base + ++lent),
    selectorsFor: () => undefined,
    liveness: 600_000,
    resumption: { strategy: { kind: 'clocked', limit: HOUR }, mayResume: () => true, octetsOf: () => 0 },
  }
  const engine = new IkeEngine({ crypto: nativeCrypto(), responder, offload: workers > 0, limits: LIMITS })
  const { credential } = responder
  const threads =
    workers > 0
      ? new HandshakeWorkers({
          credential,
          threads: workers,
          onFailure: (error) => {
            throw error
          },
        })
      : undefined
  const sockets = new UdpSockets()
  const now = () => instant(performance.now())
  const drain = (): void => {
    for (let output = engine.poll(); output !== undefined; output = engine.poll()) {
      if (output.kind === 'transmit') sockets.send(output.path, output.bytes)
      else if (output.kind === 'compute')
        threads!.compute(output, (computed) => {
          engine.handle(computed, now())
          drain()
        })
      else if (output.kind === 'child.established') wipe(output.child.inboundKey, output.child.outboundKey)
    }
  }
  sockets.onDatagram((path, bytes) => {
    engine.handle({ kind: 'datagram', path, bytes }, now())
    drain()
  })
  sockets.listen({ address, port })
  setInterval(() => {
    engine.tick(now())
    drain()
  }, 200)
  process.on('message', () => {
    globalThis.gc!()
    const { heapUsed: heap, arrayBuffers } = process.memoryUsage()
    const answer: ResponderMemory = { heap, whole: heap + arrayBuffers, sas: engine.counters()['sas.all']! }
    process.send!(answer)
  })
  process.once('disconnect', () => process.exit())
  process.send!('ready')
}
