/** `ippriv client`: the guard and the circuits of this host. */

import { ERRORS, type ErrorCode, errorLine, IpprivError } from '#base/errors'
import type { Ip } from '#base/ip'
import { type Rng, uniform } from '#base/rng'
import { loadConfig } from '#config/load'
import type { EspCipher } from '#crypto/suites'
import { type Driver, now } from '#daemon/driver'
import { GuardFile } from '#daemon/guard-file'
import { Pending } from '#daemon/pending'
import { Runtime } from '#daemon/runtime'
import { resolveTrust } from '#daemon/trust'
import { requireLocalAddress } from '#linux/interfaces'
import { sourceTowards } from '#linux/source'
import { clientSysctls } from '#linux/sysctl'
import { Underlay } from '#linux/underlay'
import { trafficOf } from '#observe/traffic'
import type { Circuit } from '#overlay/circuits'
import { type ClientEvent, type ClientInput, OverlayClient } from '#overlay/client'
import { type Destination, parseDestination } from '#overlay/path'
import { layerEnds } from '#telescope/plan'
import type { SaCounters, SaKey } from '#telescope/plane'
import { saKeys } from '#telescope/renewal'
import type { Telescope } from '#telescope/telescope'

/** What every client offers, in this order, unless its user insists on one cipher. */
const CIPHERS: readonly EspCipher[] = ['aes-256-gcm-16', 'chacha20-poly1305']

/** Milliseconds between two looks at what circuits carry. */
const TRAFFIC_INTERVAL = 3_000

export async function runClient(options: { config: string; check?: boolean }): Promise<void> {
  const config = await loadConfig('client', options.config)
  if (options.check) return
  const runtime = new Runtime('client', config)
  await runtime.run(async () => {
    const { circuit } = config
    const trust = await resolveTrust(config.directory, config.state, runtime.crypto)
    // One for all: they are on the same side of this host.
    const [{ address: target }] = trust.servers
    if (config.address !== undefined) await requireLocalAddress(config.address)
    const self = config.address ?? (await sourceTowards(target))
    runtime.listenIke(self)
    const { plane, context } = await runtime.openPlane(config.plane, config.userspace, self)
    await (await runtime.openSysctls()).set(clientSysctls(plane.device))
    const guardFile = new GuardFile(config.state, (error) => runtime.log.error(errorLine(error)))
    runtime.onClose(() => guardFile.done())
    const client = new OverlayClient({
      guards: await guardFile.read(),
      self,
      directories: [...trust.servers, ...trust.mirrors],
      context,
      hops: circuit.hops,
      ciphers: circuit.cipher === CIPHERS[0] ? CIPHERS : [circuit.cipher],
      sameNetwork: circuit.sameNetwork,
      reserve: { spares: circuit.spares, rotation: circuit.rotation },
      onDemand: circuit.onDemand,
      isolation: config.isolation,
      exclude: circuit.exclude,
      excludeNetworks: circuit.excludeNetworks,
      ...(circuit.exit ? { exit: circuit.exit } : {}),
      crypto: runtime.crypto,
      rng: runtime.rng,
      keyLog: config.keylog !== undefined,
      ...(circuit.path ? { path: circuit.path } : {}),
    })
    let lastError: string | null = null
    let trouble: string | null = null
    let advice: string | null = null
    let guardFailure: IpprivError | undefined
    const building = new Pending<Telescope>()
    const rekeying = new Pending<void>()
    const driver = runtime.drive<ClientInput, ClientEvent>(client, (event) => {
      if (event.kind === 'circuit.failed' || event.kind === 'guard.failed')
        lastError = lineOf(event.code, event.detail)
      if (event.kind === 'guards.changed') guardFile.keep(event.sampled)
      if (event.kind === 'guard.failed') guardFailure = new IpprivError(event.code, event.detail)
      report(runtime, event)
      if (event.kind === 'circuit.open') building.done(event.ticket, event.circuit)
      if (event.kind === 'circuit.failed')
        building.failed(event.ticket, new IpprivError(event.code, event.detail))
      if (event.kind === 'rekeyed') rekeying.done(event.ticket)
      if (event.kind === 'rekey.failed')
        rekeying.failed(event.ticket, new IpprivError(event.code, event.detail))
    })
    driver.input({ kind: 'start' })
    await driver.idle()
    if (guardFailure !== undefined) throw guardFailure
    const outside = new Set([...trust.servers, ...trust.mirrors].map(({ address }) => address))
    await runtime.followDirectory(trust, {
      isGuarded: true,
      onConsensus: (consensus) => driver.input({ kind: 'consensus', consensus }),
      caches: () => cacheBeyond(client, outside, runtime.rng),
      onExpired: () => driver.input({ kind: 'consensus.expired' }),
      onTrouble: (line) => {
        trouble = line
      },
      onAdvice: (line) => {
        advice = line
      },
    })
    const look = async (): Promise<void> => {
      if (client.circuits.length === 0) return
      try {
        driver.input({ kind: 'traffic', counters: await plane.counters() })
      } catch (error) {
        runtime.log.warn(errorLine(error))
      }
    }
    const looking = setInterval(look, TRAFFIC_INTERVAL)
    runtime.onClose(() => clearInterval(looking))
    // Who sets the address wants that one and no other.
    if (config.address === undefined) followUnderlay(runtime, driver, self, target)
    const status = async () => {
      const sas = await plane.counters()
      const { consensus } = client
      return {
        role: 'client',
        pid: process.pid,
        plane: plane.kind,
        state: client.state,
        lastError: (client.state === 'ready' ? null : lastError) ?? trouble,
        advice,
        consensus: consensus
          ? { serial: consensus.serial, nodes: consensus.nodes.length, validUntil: consensus.validUntil }
          : null,
        circuits: client.circuits.map((circuit) => ({
          ...describe(circuit),
          traffic: trafficOfLayers(circuit.telescope, sas),
        })),
        groups: client.groups.map(({ name, circuit, state }) => ({ name, circuit: circuit ?? null, state })),
        spares: client.circuits.filter(({ use, telescope }) => use === 'spare' && telescope.state === 'open')
          .length,
        avoided: client.avoided.map(({ name, reason, until }) => ({
          node: name,
          reason: ERRORS[reason][0],
          seconds: Math.max(0, Math.round((until - now()) / 1000)),
        })),
        counters: { ...client.counters(), ...runtime.directoryCounters(), ...(await plane.drops()) },
        sas,
      }
    }
    const handlers = {
      status,
      'nodes.list': async () => ({
        nodes: (client.consensus?.nodes ?? []).map(({ nodeId, name, roles }) => ({ nodeId, name, roles })),
      }),
      'circuits.list': async () => ({ circuits: client.circuits.map(describe) }),
      'circuits.build': async (params: Record<string, unknown>) => {
        const wish = buildParameters(params)
        const telescope = await building.ask((ticket) => driver.input({ kind: 'build', ticket, ...wish }))
        return describe({ telescope, use: 'asked', group: undefined })
      },
      'circuits.close': async (params: Record<string, unknown>) => {
        const { id } = find(client, params)
        driver.input({ kind: 'close', circuit: id })
        await driver.idle()
        return {}
      },
      'circuits.rekey': async (params: Record<string, unknown>) => {
        const { id: circuit, hops } = find(client, params)
        const { hop, ike } = rekeyParameters(params, hops.length)
        // From the inside: the keys of a layer are new before those of the layer that carries it.
        const wanted = hop === undefined ? hops.map((_, index) => hops.length - index) : [hop]
        const rekeyed: object[] = []
        for (const hop of wanted) {
          const began = performance.now()
          await rekeying.ask((ticket) => driver.input({ kind: 'rekey', ticket, circuit, hop, ike }))
          rekeyed.push({ hop, node: hops[hop - 1]!.name, ms: rounded(performance.now() - began) })
        }
        return { circuit, what: ike ? 'ike' : 'child', rekeyed }
      },
    }
    await runtime.serve(handlers, config.metrics)
    return driver
  })
}

/**
 * A node to be asked for the document through the default circuit, drawn anew each time: it is not on the circuit, and so
 * it sees the exit and nothing of who asks. `outside`: addresses that this host reaches without a telescope.
 */
function cacheBeyond(client: OverlayClient, outside: ReadonlySet<Ip>, rng: Rng): Ip[] {
  const circuit = client.circuits.find(({ isDefault, telescope }) => isDefault && telescope.state === 'open')
  if (circuit === undefined) return []
  const path = new Set(circuit.telescope.hops.map(({ nodeId }) => nodeId))
  const others = (client.consensus?.nodes ?? []).filter(
    ({ nodeId, address, ike }) => ike === undefined && !path.has(nodeId) && !outside.has(address),
  )
  return others.length === 0 ? [] : [others[uniform(rng, others.length)]!.address]
}

/** A laptop changes networks: the circuits stay, and the entry is told. */
function followUnderlay(
  runtime: Runtime,
  driver: Driver<ClientInput, ClientEvent>,
  self: Ip,
  target: Ip,
): void {
  let before = self
  const underlay = new Underlay({
    target,
    self,
    onMove: (address) => {
      runtime.log.info('the network of this host changed')
      if (address !== before) runtime.sockets.closeLocal(before)
      before = address
      runtime.listenIke(address)
      driver.input({ kind: 'moved', self: address })
    },
    onError: (line) => runtime.log.warn(line),
  })
  runtime.onClose(() => underlay.end())
}

function buildParameters(params: Record<string, unknown>): {
  path?: string[]
  hops?: number
  destination?: Destination
} {
  const { path, hops, to } = params
  const destination = typeof to === 'string' ? parseDestination(to) : undefined
  if (to !== undefined && destination === undefined)
    throw new IpprivError(
      'IPP_CONFIG_INVALID',
      'to: expected tcp:192.0.2.1:443, udp:192.0.2.1:53 or icmp:192.0.2.1',
    )
  if (path !== undefined && !(Array.isArray(path) && path.every((name) => typeof name === 'string')))
    throw new IpprivError('IPP_CONFIG_INVALID', 'path: expected a list of node names')
  if (hops !== undefined && !Number.isInteger(hops))
    throw new IpprivError('IPP_CONFIG_INVALID', 'hops: expected a number')
  return {
    ...(path ? { path } : {}),
    ...(hops ? { hops: hops as number } : {}),
    ...(destination ? { destination } : {}),
  }
}

function rekeyParameters(
  { hop, ike = false }: Record<string, unknown>,
  hops: number,
): { hop?: number; ike: boolean } {
  if (hop !== undefined && !(Number.isInteger(hop) && (hop as number) >= 1 && (hop as number) <= hops))
    throw new IpprivError('IPP_CONFIG_INVALID', `hop: expected 1 to ${hops}, found ${JSON.stringify(hop)}`)
  if (typeof ike !== 'boolean') throw new IpprivError('IPP_CONFIG_INVALID', 'ike: expected true or false')
  return { ...(hop === undefined ? {} : { hop: hop as number }), ike }
}

function find(client: OverlayClient, { id }: Record<string, unknown>): Telescope {
  const found = client.circuits.find(({ telescope }) => telescope.id === id)
  if (found === undefined) throw new IpprivError('IPP_CIRCUIT_UNKNOWN', String(id))
  return found.telescope
}

const lineOf = (code: ErrorCode, detail: string): string =>
  `${ERRORS[code][0]}: ${detail} (${ERRORS[code][1]}) [${code}]`

/** Shown to the user of this very client only, over a socket with mode 0600. */
function describe({ telescope, use, group }: Pick<Circuit, 'telescope' | 'use' | 'group'>): object {
  return {
    id: telescope.id,
    state: telescope.state,
    default: use === 'default',
    use,
    group: group?.name ?? null,
    path: telescope.hops.map((hop) => hop.name),
    nodes: telescope.hops.map(({ name, nodeId, address }) => ({ name, nodeId, address })),
    privateAddresses: telescope.privateAddresses,
    cipher: telescope.layers.at(-1)?.child.cipher ?? null,
    suite: telescope.suite,
    buildMs: telescope.opened === undefined ? null : rounded(telescope.opened - telescope.started),
    exchanges: telescope.exchanges.map(({ hop, name, duration, transmissions }) => ({
      hop,
      node: telescope.hops[hop - 1]!.name,
      name,
      ms: rounded(duration),
      transmissions,
    })),
  }
}

/** Of each layer, entry first: what the SAs it has now carried. */
function trafficOfLayers({ layers, hops }: Telescope, sas: readonly SaCounters[]): object[] {
  return layers.map((layer, index) => {
    const isInbound = new Map(
      saKeys(layerEnds(layer), layer).map((sa) => [saText(sa), sa.destination === layer.outerSource]),
    )
    return { node: hops[index]!.name, ...trafficOf(sas, (sa) => isInbound.get(saText(sa))) }
  })
}

const saText = ({ source, destination, spi }: SaKey): string => `${source} ${destination} ${spi}`

const rounded = (ms: number): number => Math.round(ms * 100) / 100

/** Levels are promises: no path and no address at info or above. */
function report(runtime: Runtime, event: ClientEvent): void {
  const { log } = runtime
  switch (event.kind) {
    case 'circuit.open':
      log.info({ circuit: event.circuit.id, hops: event.circuit.hops.length }, 'circuit is open')
      return log.debug({ path: event.circuit.hops.map((hop) => hop.name) }, 'path')
    case 'circuit.failed':
      log.warn({ code: event.code, circuit: event.circuit?.id }, ERRORS[event.code][0])
      return log.debug({ detail: event.detail }, 'failure')
    case 'circuit.draining':
      return log.info({ circuit: event.circuit.id }, 'a hop is silent: nothing new enters this circuit')
    case 'circuit.default':
      return log.info({ circuit: event.circuit.id, group: event.group }, 'circuit that stood ready is in use')
    case 'circuit.closed':
      return log.info({ circuit: event.circuit.id }, 'circuit is closed')
    case 'circuit.moved':
      return log.info({ circuit: event.circuit.id }, 'the entry knows where we are now')
    case 'guard.failed':
      log.error({ code: event.code }, ERRORS.IPP_GUARD_DOWN[0])
      return log.debug({ detail: event.detail }, 'failure')
    case 'guards.changed':
      return log.debug({ sampled: event.sampled.length }, 'entry guards changed')
    case 'refused':
      return log.debug({ counter: event.counter }, 'refused')
    case 'rekeyed':
      return log.debug('rekeyed on request')
    case 'rekey.failed':
      return log.debug({ code: event.code, detail: event.detail }, 'not rekeyed')
    case 'keys':
      return runtime.logIkeKeys(event.keys)
    case 'stopped':
      return runtime.stopped()
  }
}
