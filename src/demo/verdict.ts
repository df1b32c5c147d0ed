import type { Ip } from '#base/ip'
import { addressesIn, type Flow, flowText, type View } from '#demo/analysis'
import type { CircuitStatus } from '#demo/daemons'
import type { KeyRing } from '#demo/keys'

/** One thing the demo claims, whether it held, and what was seen. */
export interface Check {
  readonly name: string
  readonly ok: boolean
  readonly evidence: string
}

/** Everything that was seen, from which the privacy checks are decided. Pure: no file, no process. */
export interface Evidence {
  readonly client: Ip
  readonly server: Ip
  readonly directory: Ip
  readonly directoryPort: number
  /** Public address of every node, by name. */
  readonly nodes: ReadonlyMap<string, Ip>
  /** Circuits that were open during the full captures, all over the same path. */
  readonly circuits: readonly Pick<CircuitStatus, 'path' | 'privateAddresses'>[]
  /** What each cable showed, peeled with no key at all, by host name. */
  readonly links: ReadonlyMap<string, View>
  /** What each node could see: its cable and its inside, peeled with its own keys. */
  readonly inside: ReadonlyMap<string, View>
  /** ESP keys by daemon. */
  readonly keys: ReadonlyMap<string, KeyRing>
  /** The client's cable, peeled with the client's keys: complete while circuits were built and used. */
  readonly clientLink: View
  /** The same from before the client started until after it ended; of ESP the first packet of every SA and samples. */
  readonly leakWatch: View
  /** Packets of the router with a private address. */
  readonly privateAtRouter: number
  /** Packets the kernel dropped before a capture could keep them, over all captures; NaN: one of them died. */
  readonly captureDrops: number
}

/** What one party knows, for the table. */
export interface Knowledge {
  readonly party: string
  readonly addresses: readonly Ip[]
}

export interface Verdict {
  readonly checks: readonly Check[]
  readonly knowledge: readonly Knowledge[]
  /** Packets of the client outside the telescope. */
  readonly leaks: number
}

export function judge(evidence: Evidence): Verdict {
  const names = labels(evidence)
  const leaks = leaksOf(evidence)
  const knowledge = knowledgeOf(evidence)
  const checks = [
    ...knowledgeChecks(evidence, knowledge, names),
    ...overlayChecks(evidence),
    clientLinkCheck(evidence, names),
    check('no private address on any cable', privateFlows(evidence), (found) =>
      found.length === 0
        ? `0 packets with an address of 10.0.0.0/8 at the router, none quoted in ICMP errors`
        : `${evidence.privateAtRouter} packets at the router; ${list(found)}`,
    ),
    {
      name: 'no packet of the client outside the telescope',
      ok: leaks.packets === 0 && evidence.leakWatch.packets > 0,
      evidence:
        leaks.packets === 0
          ? `0 leaked; seen on the client's cable from before its start until after its end: ${list(leaks.allowed)}`
          : `${leaks.packets} leaked: ${list(leaks.leaked)}`,
    },
    {
      name: 'the captures are complete',
      ok: evidence.captureDrops === 0,
      evidence: Number.isNaN(evidence.captureDrops)
        ? 'a capture ended before it was told to'
        : `${evidence.captureDrops} packets dropped before they were captured`,
    },
  ]
  return { checks, knowledge, leaks: leaks.packets }
}

/** People's names for addresses: `client`, `alder`, `S_1` (lent by the first hop), `S_1'` (second circuit). */
export function labels(
  evidence: Pick<Evidence, 'client' | 'server' | 'directory' | 'nodes' | 'circuits'>,
): Map<Ip, string> {
  const names = new Map<Ip, string>([
    [evidence.client, 'client'],
    [evidence.server, 'server'],
    [evidence.directory, 'directory'],
  ])
  for (const [name, address] of evidence.nodes) names.set(address, name)
  for (const [index, circuit] of evidence.circuits.entries())
    for (const [hop, address] of circuit.privateAddresses.entries())
      names.set(address as Ip, `S_${hop + 1}${"'".repeat(index)}`)
  return names
}

/** Exactly what hop `index` (from 0) may know: the hop before it, itself, the hop behind it, and S of both. */
export function allowedAt(evidence: Evidence, index: number): Set<Ip> {
  const path = pathOf(evidence)
  const allowed = new Set<Ip>([evidence.nodes.get(path[index]!)!])
  allowed.add(index === 0 ? evidence.client : evidence.nodes.get(path[index - 1]!)!)
  allowed.add(index === path.length - 1 ? evidence.server : evidence.nodes.get(path[index + 1]!)!)
  for (const circuit of evidence.circuits) {
    if (index > 0) allowed.add(circuit.privateAddresses[index - 1] as Ip)
    allowed.add(circuit.privateAddresses[index] as Ip)
  }
  return allowed
}

const pathOf = (evidence: Evidence): readonly string[] => evidence.circuits[0]?.path ?? []

function knowledgeOf(evidence: Evidence): Knowledge[] {
  const wire = (party: string, host: string): Knowledge => ({
    party,
    addresses: addressesIn(evidence.links.get(host)?.flows ?? []),
  })
  const path = pathOf(evidence)
  return [
    wire('cable of the client', 'client'),
    ...path.map((name, index) => ({
      party: `${name} (${roleOf(index, path.length)})`,
      addresses: addressesIn(circuitFlows(evidence, evidence.inside.get(name)?.flows ?? [])),
    })),
    wire('server', 'server'),
    wire('directory', 'directory'),
  ]
}

export function roleOf(index: number, hops: number): string {
  if (hops === 1) return 'entry and exit'
  if (index === 0) return 'entry'
  if (index === hops - 1) return 'exit'
  return hops > 3 ? `middle ${index}` : 'middle'
}

function knowledgeChecks(
  evidence: Evidence,
  knowledge: readonly Knowledge[],
  names: Map<Ip, string>,
): Check[] {
  const path = pathOf(evidence)
  const checks = path.map((name, index) => {
    const known = knowledge[index + 1]!.addresses
    const allowed = allowedAt(evidence, index)
    const view = evidence.inside.get(name)
    const opened = sum(view?.flows ?? [], (flow) => flow.opened)
    const forged = sum(view?.flows ?? [], (flow) => flow.forged)
    const previous = index === 0 ? 'the client' : path[index - 1]
    const next = index === path.length - 1 ? 'the server' : path[index + 1]
    return {
      name: `${roleOf(index, path.length)} sees ${previous} and ${next} only`,
      ok: known.length === allowed.size && known.every((a) => allowed.has(a)) && opened > 0 && forged === 0,
      evidence:
        `${name} knows ${describeAddresses(known, names)}; ${opened} ESP layers opened with its own keys, check values right` +
        (forged === 0 ? '' : `, ${forged} WRONG`) +
        difference(known, allowed, names),
    }
  })
  const server = knowledge.find((row) => row.party === 'server')?.addresses ?? []
  const exit = evidence.nodes.get(path.at(-1) ?? '')
  const allowed = new Set([evidence.server, ...(exit === undefined ? [] : [exit])])
  checks.push({
    name: 'server sees the exit only',
    ok: server.length === allowed.size && server.every((address) => allowed.has(address)),
    evidence: `its cable shows ${describeAddresses(server, names)}${difference(server, allowed, names)}`,
  })
  return checks
}

/**
 * Flows that say something about circuits. Left out: what nodes do among themselves whatever circuits there
 * are (the overlay's own IKE) and the documents they exchange with the directory.
 */
export function circuitFlows(evidence: Evidence, flows: readonly Flow[]): Flow[] {
  const nodes = new Set(evidence.nodes.values())
  return flows.filter((flow) => {
    const ends = [flow.source, flow.destination]
    if (ends.every((address) => address.startsWith('127.'))) return false
    if (flow.depth > 0) return true
    if (flow.kind === 'ike' && ends.every((address) => nodes.has(address))) return false
    return !isDirectoryFlow(evidence, flow)
  })
}

const isDirectoryFlow = (evidence: Evidence, flow: Flow): boolean =>
  flow.what === `tcp ${evidence.directoryPort}` &&
  (flow.source === evidence.directory || flow.destination === evidence.directory)

/** On a cable between two nodes: the overlay's own IKE, and of ESP one SPI per direction, known to both ends. */
function overlayChecks(evidence: Evidence): Check[] {
  const path = pathOf(evidence)
  const checks: Check[] = []
  for (let index = 0; index + 1 < path.length; index++) {
    const [near, far] = [path[index]!, path[index + 1]!]
    const seen: string[] = []
    const wrong: string[] = []
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      const source = evidence.nodes.get(from)!
      const destination = evidence.nodes.get(to)!
      const isBetween = (flow: Flow) =>
        flow.depth === 0 && flow.source === source && flow.destination === destination
      // The same packets pass both cables; what one of them shows more than the other is suspect too.
      const flows = [near, far].flatMap((name) => evidence.links.get(name)?.flows ?? []).filter(isBetween)
      const spis = new Set(flows.flatMap((flow) => flow.spi ?? []))
      wrong.push(...flows.filter((flow) => flow.kind !== 'esp' && flow.kind !== 'ike').map(flowText))
      if (spis.size !== 1) wrong.push(`${from}>${to}: ${spis.size} SPIs`)
      for (const spi of spis) {
        const shared = [near, far].every(
          (name) => evidence.keys.get(name)?.find(spi, source, destination).length === 1,
        )
        if (!shared) wrong.push(`${from}>${to}: the two ends do not share the key of 0x${spi.toString(16)}`)
        const packets =
          sum(
            flows.filter((flow) => flow.spi === spi),
            (flow) => flow.packets,
          ) / 2
        seen.push(`${from}>${to} 0x${spi.toString(16).padStart(8, '0')} (${Math.round(packets)} packets)`)
      }
    }
    const inner = innerSpis(evidence, index + 1)
    if (inner < evidence.circuits.length)
      wrong.push(`${far} itself sees ${inner} telescopes from ${near}, not ${evidence.circuits.length}`)
    checks.push({
      name: `cable ${near}-${far} shows the overlay SPI pair only, with ${evidence.circuits.length} circuits at once`,
      ok: wrong.length === 0,
      evidence:
        `${list(seen)}; control: inside ${far} the same packets carry ${inner} telescope SPIs` +
        (wrong.length === 0 ? '' : `; WRONG: ${list(wrong)}`),
    })
  }
  return checks
}

/** Telescope SPIs that hop `index` sees coming from the hop before it, after opening the overlay tunnel. */
function innerSpis(evidence: Evidence, index: number): number {
  const name = pathOf(evidence)[index]!
  const sources = new Set(evidence.circuits.map((circuit) => circuit.privateAddresses[index - 1]))
  const flows = evidence.inside.get(name)?.flows ?? []
  const spis = flows
    .filter((flow) => flow.depth > 0 && sources.has(flow.source))
    .flatMap((flow) => flow.spi ?? [])
  return new Set(spis).size
}

/** While everything was captured: ESP that opens with the client's keys, IKE with the entry, the directory. */
function clientLinkCheck(evidence: Evidence, names: Map<Ip, string>): Check {
  const entry = evidence.nodes.get(pathOf(evidence)[0] ?? '')
  const wire = evidence.clientLink.flows.filter((flow) => flow.depth === 0)
  const wrong = wire.filter((flow) => {
    const far = flow.source === evidence.client ? flow.destination : flow.source
    if (flow.kind === 'esp') return far !== entry || flow.opened !== flow.packets
    return !(flow.kind === 'ike' && far === entry) && !isDirectoryFlow(evidence, flow)
  })
  const deepest = Math.max(0, ...evidence.clientLink.flows.map((flow) => flow.depth))
  const opened = sum(wire, (flow) => flow.opened)
  const hops = pathOf(evidence).length
  return {
    name: 'cable of the client shows ESP and IKE with the entry only',
    ok: wrong.length === 0 && opened > 0 && deepest === hops && evidence.clientLink.strange.size === 0,
    evidence:
      `${opened} ESP packets, every one opened with the client's keys, ${deepest} layers deep; ` +
      `peers ${describeAddresses(addressesIn(wire), names)}` +
      (wrong.length === 0 ? '' : `; WRONG: ${list(wrong.map(flowText))}`),
  }
}

interface Leaks {
  readonly packets: number
  readonly leaked: readonly string[]
  readonly allowed: readonly string[]
}

/**
 * Allowed outside the telescope: ESP with a node under a key the client negotiated, IKE with a node, the
 * directory; and the kernel's answer to a node that still speaks after the client's end, quoting nothing but that
 * node's own packet to it. Everything else, in either direction, is a leak; a packet of another family too.
 */
function leaksOf(evidence: Evidence): Leaks {
  const nodes = new Set(evidence.nodes.values())
  const leaked: string[] = []
  const allowed: string[] = []
  let packets = 0
  for (const flow of evidence.leakWatch.flows.filter((candidate) => candidate.depth === 0)) {
    const far = flow.source === evidence.client ? flow.destination : flow.source
    const fine =
      (flow.kind === 'esp' && nodes.has(far) && flow.opened === flow.packets) ||
      (flow.kind === 'ike' && nodes.has(far)) ||
      (flow.quoted.length === 2 &&
        nodes.has(far) &&
        flow.quoted[0] === far &&
        flow.quoted[1] === evidence.client) ||
      isDirectoryFlow(evidence, flow)
    if (fine) allowed.push(flowText(flow))
    else {
      packets += flow.kind === 'esp' && nodes.has(far) ? flow.packets - flow.opened : flow.packets
      leaked.push(flowText(flow))
    }
  }
  for (const [type, count] of evidence.leakWatch.strange) {
    packets += count
    leaked.push(`EtherType 0x${type.toString(16)}`)
  }
  return { packets, leaked, allowed }
}

function privateFlows(evidence: Evidence): string[] {
  const found = evidence.privateAtRouter > 0 ? ['at the router'] : []
  for (const [name, view] of evidence.links)
    for (const flow of view.flows)
      if ([flow.source, flow.destination, ...flow.quoted].some((address) => address.startsWith('10.')))
        found.push(`${name}: ${flowText(flow)}`)
  return found
}

function check(
  name: string,
  wrong: readonly string[],
  evidence: (wrong: readonly string[]) => string,
): Check {
  return { name, ok: wrong.length === 0, evidence: evidence(wrong) }
}

function difference(known: readonly Ip[], allowed: ReadonlySet<Ip>, names: Map<Ip, string>): string {
  const extra = known.filter((address) => !allowed.has(address))
  const missing = [...allowed].filter((address) => !known.includes(address))
  return (
    (extra.length === 0 ? '' : `; must NOT know ${describeAddresses(extra, names)}`) +
    (missing.length === 0 ? '' : `; expected but not seen: ${describeAddresses(missing, names)}`)
  )
}

function describeAddresses(addresses: readonly Ip[], names: Map<Ip, string>): string {
  return addresses.map((address) => `${names.get(address) ?? '?'} ${address}`).join(', ') || 'nobody'
}

/** Evidence is for people: the first few, and how many more. */
function list(items: readonly string[]): string {
  const shown = items.slice(0, 8).join('; ')
  return items.length > 8 ? `${shown}; and ${items.length - 8} more` : shown
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  let total = 0
  for (const item of items) total += of(item)
  return total
}
