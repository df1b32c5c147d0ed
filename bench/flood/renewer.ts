/**
 * An honest client with one IKE SA whose keys are renewed all the time: `node bench/flood/renewer.ts LOCAL NODE ID KEY`,
 * with the node's id and IKE key in hex. Prints a line of JSON for every exchange, until it is ended.
 */
import { fromHex } from '#base/bytes'
import { ip, type UdpPath } from '#base/ip'
import { instant } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { IkeEngine } from '#ikev2/engine'
import { ANY_SELECTOR, type ChildSa, type IkeEvent } from '#ikev2/events'
import { UdpSockets } from '#linux/sockets'

export interface Renewal {
  /** Milliseconds since 1970, when it was answered. */
  readonly at: number
  readonly name: string
  readonly milliseconds: number
  /** 1: nothing was lost, and the answer came before patience ended. */
  readonly transmissions: number
}

const PERIOD = 500
/** Of so many renewals one is that of the IKE SA itself. */
const IKE_EVERY = 4

const [local, node, id, key] = process.argv.slice(2)
const publicKey = fromHex(key!)
const path: UdpPath = { local: { address: ip(local!), port: 500 }, remote: { address: ip(node!), port: 500 } }
const engine = new IkeEngine({ crypto: nodeCrypto })
const sockets = new UdpSockets()
const now = () => instant(performance.now())
let child: ChildSa | undefined

const hear = (event: IkeEvent): void => {
  if (event.kind === 'child.established' || event.kind === 'child.switched') child = event.child
  if (event.kind === 'ike.closed') throw new Error(`the IKE SA ended: ${event.reason}: ${event.detail}`)
  if (event.kind !== 'exchange') return
  const { name, duration: milliseconds, transmissions } = event
  const renewal: Renewal = { at: Date.now(), name, milliseconds, transmissions }
  process.stdout.write(`${JSON.stringify(renewal)}\n`)
}
const drain = (): void => {
  for (let output = engine.poll(); output !== undefined; output = engine.poll())
    if (output.kind === 'transmit') sockets.send(output.path, output.bytes)
    else if (output.kind !== 'compute') hear(output)
}

sockets.onDatagram((from, bytes) => {
  engine.handle({ kind: 'datagram', path: from, bytes }, now())
  drain()
})
sockets.listen(path.local)
const sa = engine.initiate(
  {
    path,
    credential: { kind: 'null' },
    peer: { id: { type: 11, data: fromHex(id!) }, publicKey },
    requestAddress: true,
    localSelectors: [ANY_SELECTOR],
    remoteSelectors: [ANY_SELECTOR],
    espCiphers: ['aes-256-gcm-16'],
  },
  now(),
)
drain()
setInterval(() => {
  engine.tick(now())
  drain()
}, 50)
let renewals = 0
setInterval(() => {
  if (child === undefined) return
  if (++renewals % IKE_EVERY === 0) engine.rekeyIke(sa, now())
  else engine.rekeyChild(sa, child.inboundSpi, now())
  drain()
}, PERIOD)
