/** What an IKE_SA_INIT costs that is answered with a cookie: the engine alone, without sockets, on one core. */
import { ip, type UdpEndpoint } from '#base/ip'
import { instant } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { IkeEngine } from '#ikev2/engine'
import type { ResponderPolicy } from '#ikev2/events'
import { SpoofedRequests } from '../flood/request.ts'

const LOCAL: UdpEndpoint = { address: ip('198.18.10.1'), port: 500 }
/** Half-open IKE SAs from the first on which nobody is let in without a cookie, and until the code is warm. */
const WARM_UP = 20_000

/** Microseconds of processor time for each of so many requests without a cookie, under load. */
export function measureRefusals(count: number): number {
  const engine = new IkeEngine({ crypto: nodeCrypto, responder: policy() })
  const requests = new SpoofedRequests()
  const knock = (times: number): void => {
    for (let i = 0; i < times; i++) {
      const { source: remote, bytes } = requests.next()
      engine.handle({ kind: 'datagram', path: { local: LOCAL, remote }, bytes }, instant(0))
      while (engine.poll() !== undefined);
    }
  }
  knock(WARM_UP)
  // The making of requests is not what is measured.
  const made = cpuOf(() => {
    for (let i = 0; i < count; i++) requests.next()
  })
  const before = engine.counters()['cookie-demanded']!
  const whole = cpuOf(() => knock(count))
  const refused = engine.counters()['cookie-demanded']! - before
  if (refused !== count) throw new Error(`${refused} of ${count} requests were refused`)
  return (whole - made) / count
}

/** Microseconds. */
function cpuOf(work: () => void): number {
  const before = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(before)
  return user + system
}

function policy(): ResponderPolicy {
  const { privateKey, publicKey } = nodeCrypto.ed25519Generate()
  const id = { type: 11, data: nodeCrypto.hash('sha256', publicKey) }
  return {
    credential: { kind: 'ed25519', id, privateKey, publicKey },
    espCiphers: ['aes-256-gcm-16'],
    admitAnonymous: () => undefined,
    publicKeyOf: () => undefined,
    lease: () => undefined,
    selectorsFor: () => undefined,
  }
}
