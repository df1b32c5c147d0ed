/** Engines on a simulated network, with what they said: the stage of most tests here. */

import assert from 'node:assert/strict'
import { ERRORS } from '#base/errors'
import type { IkeSaId } from '#base/ids'
import { type Ip, ip, type UdpPath } from '#base/ip'
import type { Duration } from '#base/time'
import type { CryptoProvider } from '#crypto/provider'
import { IkeEngine, type IkeLimits } from '#ikev2/engine'
import {
  ANY_SELECTOR,
  type ChildSa,
  type IkeEvent,
  type IkeId,
  type IkeInput,
  type IkeOutput,
  type InitiateRequest,
  type LocalCredential,
  type ResponderPolicy,
} from '#ikev2/events'
import { along, type LinkProfile, pathOf, SimNetwork } from '../sim/network.ts'
import { seededCrypto, seededRng } from '../sim/random.ts'

export const CLIENT = ip('192.0.2.1')
export const NODE = ip('198.51.100.1')

export interface Host {
  readonly address: Ip
  readonly engine: IkeEngine
  readonly crypto: CryptoProvider
  /** Everything but datagrams, in order. */
  readonly events: IkeEvent[]
  /** Datagrams and events, in order. */
  readonly outputs: IkeOutput[]
  /** Installed, by inbound SPI. */
  readonly children: Map<number, ChildSa>
  /** What it sends on, by IKE SA. */
  readonly sending: Map<IkeSaId, ChildSa>
}

export interface NodeKey {
  readonly id: IkeId
  readonly credential: LocalCredential & { kind: 'ed25519' }
}

export function nodeKey(crypto: CryptoProvider): NodeKey {
  const pair = crypto.ed25519Generate()
  const id: IkeId = { type: 11, data: crypto.hash('sha256', pair.publicKey) }
  return { id, credential: { kind: 'ed25519', id, ...pair } }
}

/** A policy that takes everybody, lends from 10.1.0.0/24 and remembers what it lent. */
export function openPolicy(
  key: NodeKey,
  overrides: Partial<ResponderPolicy> = {},
): ResponderPolicy & {
  readonly leases: Map<IkeSaId, Ip>
} {
  const leases = new Map<IkeSaId, Ip>()
  return {
    leases,
    credential: key.credential,
    espCiphers: ['aes-256-gcm-16', 'chacha20-poly1305'],
    admitAnonymous: () => undefined,
    publicKeyOf: () => undefined,
    lease(sa) {
      const address = ip(`10.1.0.${leases.size + 1}`)
      leases.set(sa, address)
      return address
    },
    selectorsFor: (_id, local, remote) => ({ local, remote }),
    ...overrides,
  }
}

export function anonymousRequest(key: NodeKey, overrides: Partial<InitiateRequest> = {}): InitiateRequest {
  return {
    path: pathBetween(CLIENT, NODE),
    credential: { kind: 'null' },
    peer: { id: key.id, publicKey: key.credential.publicKey },
    requestAddress: true,
    localSelectors: [ANY_SELECTOR],
    remoteSelectors: [ANY_SELECTOR],
    espCiphers: ['aes-256-gcm-16', 'chacha20-poly1305'],
    ...overrides,
  }
}

export const pathBetween = (local: Ip, remote: Ip, localPort = 500): UdpPath => ({
  local: { address: local, port: localPort },
  remote: { address: remote, port: 500 },
})

export function addHost(
  network: SimNetwork,
  options: {
    readonly address: Ip
    readonly seed: number
    readonly responder?: ResponderPolicy
    readonly limits?: Partial<IkeLimits>
    readonly keyLog?: boolean
    readonly crypto?: CryptoProvider
    readonly spread?: number
  },
): Host {
  const { address, seed, responder, limits, keyLog, spread } = options
  const crypto = options.crypto ?? seededCrypto(seededRng(seed))
  const engine = new IkeEngine({
    crypto,
    ...(responder ? { responder } : {}),
    ...(limits ? { limits } : {}),
    ...(keyLog ? { keyLog } : {}),
    ...(spread ? { spread } : {}),
  })
  const host: Host = {
    address,
    engine,
    crypto,
    events: [],
    outputs: [],
    children: new Map(),
    sending: new Map(),
  }
  network.attach<IkeInput, IkeOutput>({
    name: `${address}`,
    machine: engine,
    addresses: [address],
    input: (datagram) => ({ kind: 'datagram', path: pathOf(datagram), bytes: datagram.bytes }),
    perform(output) {
      host.outputs.push(output)
      if (output.kind === 'compute') throw new Error('these engines compute themselves')
      if (output.kind === 'transmit') return network.send(along(output.path, output.bytes))
      host.events.push(output)
      follow(host, output)
      if (output.kind === 'ike.closed' && !(output.reason in ERRORS)) throw new Error(output.reason)
    },
  })
  return host
}

/** Installs and removes as an owner does. */
function follow({ children, sending }: Host, event: IkeEvent): void {
  switch (event.kind) {
    case 'child.established':
      children.set(event.child.inboundSpi, event.child)
      sending.set(event.sa, event.child)
      return
    case 'child.rekeyed':
      assert.ok(children.has(event.old.inboundSpi), 'what is rekeyed exists')
      children.set(event.child.inboundSpi, event.child)
      return
    case 'child.switched':
      assert.ok(children.has(event.child.inboundSpi), 'what is switched to is installed')
      assert.equal(sending.get(event.sa), event.old)
      sending.set(event.sa, event.child)
      return
    case 'child.closed':
      assert.ok(children.delete(event.child.inboundSpi), 'what is closed was installed')
      if (sending.get(event.sa) === event.child) sending.delete(event.sa)
  }
}

export interface Pair {
  readonly network: SimNetwork
  readonly client: Host
  readonly node: Host
  readonly key: NodeKey
  readonly policy: ReturnType<typeof openPolicy>
}

/** A client and a node; the node's policy and limits may be changed. */
export function pair(
  options: {
    readonly seed?: number
    readonly link?: LinkProfile
    readonly policy?: Partial<ResponderPolicy>
    readonly limits?: Partial<IkeLimits>
    readonly keyLog?: boolean
  } = {},
): Pair {
  const { seed = 1, link, limits, keyLog } = options
  const network = new SimNetwork({ seed, ...(link ? { link } : {}) })
  const key = nodeKey(seededCrypto(seededRng(1000 + seed)))
  const policy = openPolicy(key, options.policy)
  const shared = { ...(limits ? { limits } : {}), ...(keyLog ? { keyLog } : {}) }
  const client = addHost(network, { address: CLIENT, seed: 2000 + seed, ...shared })
  const node = addHost(network, { address: NODE, seed: 3000 + seed, responder: policy, ...shared })
  return { network, client, node, key, policy }
}

/** Initiates as nobody and lets time pass until something is decided. */
export function connect(
  { network, client, key }: Pair,
  overrides: Partial<InitiateRequest> = {},
  patience: Duration = 60_000,
): IkeSaId {
  const id = client.engine.initiate(anonymousRequest(key, overrides), network.now)
  network.run(patience, () => ofKind(client, 'child.established', id) || ofKind(client, 'ike.closed', id))
  return id
}

export function ofKind(host: Host, kind: IkeEvent['kind'], sa?: IkeSaId): boolean {
  return host.events.some(
    (event) => event.kind === kind && (sa === undefined || ('sa' in event && event.sa === sa)),
  )
}

export function find<K extends IkeEvent['kind']>(
  host: Host,
  kind: K,
): Extract<IkeEvent, { kind: K }> | undefined {
  return host.events.findLast((event): event is Extract<IkeEvent, { kind: K }> => event.kind === kind)
}

/** No IKE SA, no timer, no Child SA: nothing is left of whatever happened. */
export function isEmpty(host: Host): boolean {
  return (
    host.engine.counters()['sas.all'] === 0 &&
    host.engine.counters()['spis.inbound'] === 0 &&
    host.engine.nextTimeout() === undefined &&
    host.children.size === 0 &&
    host.sending.size === 0
  )
}
