import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Ip } from '#base/ip'
import { analyse } from '#demo/analysis'
import type { CaptureSpec } from '#demo/capture'
import { DIRECTORY_PORT, keyLogOf } from '#demo/daemons'
import { KeyRing, parseEspSa } from '#demo/keys'
import { readPcap } from '#demo/pcap'
import type { Scene } from '#demo/scene'
import { hostOf, nodesOf, type Topology } from '#demo/topology'
import type { Evidence } from '#demo/verdict'

/** What is captured where, and how the files become evidence. */

/** Everything on every cable (at the router) and on every device inside the nodes and the client. */
export function fullCaptures(topology: Topology): CaptureSpec[] {
  const cables = topology.hosts.filter((host) => host.role !== 'plain')
  const insides = topology.hosts.filter((host) => host.role === 'node' || host.role === 'client')
  return [
    ...cables.map((host) => ({ name: cable(host.name), namespace: topology.router, device: host.cable })),
    ...insides.map((host) => ({ name: inside(host.name), namespace: host.namespace, device: 'any' })),
  ]
}

/** Cheap enough to run through the large downloads: from before the client starts until after it ended. */
export function watchCaptures(topology: Topology): CaptureSpec[] {
  return [
    { name: PRIVATE, namespace: topology.router, device: 'any', filter: 'ip and net 10.0.0.0/8' },
    leakCapture(topology, LEAKS),
  ]
}

/**
 * The client's cable without what is plainly allowed: ARP and the directory. Of the ESP with nodes it keeps
 * the packets whose sequence number ends in 0x01: the first of every SA, and every 256th to sample it.
 */
export function leakCapture(topology: Topology, name: string): CaptureSpec {
  const nodes = nodesOf(topology).map((node) => `host ${node.address}`)
  const directory = `(tcp port ${DIRECTORY_PORT} and host ${hostOf(topology, 'directory').address})`
  // RFC 4303 section 2: the low 32 bits of the sequence number stand 4 octets behind the IPv4 header.
  const bulk = `(ip proto 50 and (${nodes.join(' or ')}) and ip[24:4] & 0xff != 1)`
  const filter = `not arp and not ${directory} and not ${bulk}`
  return { name, namespace: topology.router, device: hostOf(topology, 'client').cable, filter }
}

/** Reads captures and key logs of a finished run. @throws RangeError for a file that is not what it should be. */
export async function gather(
  topology: Topology,
  out: string,
  run: Pick<Scene, 'circuits' | 'totals' | 'clientEnded'>,
): Promise<Evidence> {
  const nodes = nodesOf(topology)
  const file = (name: string) => readFile(join(out, `${name}.pcap`))
  const ring = async (name: string): Promise<KeyRing> => {
    const log = join(keyLogOf(out, name), 'esp_sa')
    return new KeyRing(existsSync(log) ? parseEspSa(await readFile(log, 'utf8')) : [])
  }
  const none = new KeyRing([])
  const keys = new Map<string, KeyRing>()
  for (const { name } of [...nodes, hostOf(topology, 'client')]) keys.set(name, await ring(name))
  const links = new Map<string, Evidence['clientLink']>()
  for (const host of topology.hosts)
    if (host.role !== 'plain') links.set(host.name, analyse([await file(cable(host.name))], none))
  const insides = new Map<string, Evidence['clientLink']>()
  for (const { name } of nodes)
    insides.set(name, analyse([await file(cable(name)), await file(inside(name))], keys.get(name)!))
  return {
    client: hostOf(topology, 'client').address as Ip,
    server: hostOf(topology, 'server').address as Ip,
    directory: hostOf(topology, 'directory').address as Ip,
    directoryPort: DIRECTORY_PORT,
    nodes: new Map(nodes.map((node) => [node.name, node.address as Ip])),
    circuits: run.circuits,
    links,
    inside: insides,
    keys,
    clientLink: analyse([await file(cable('client'))], keys.get('client')!),
    leakWatch: analyse([await file(LEAKS)], keys.get('client')!, run.clientEnded),
    privateAtRouter: [...readPcap(await file(PRIVATE))].length,
    captureDrops: [...run.totals.values()].reduce((sum, total) => sum + total.dropped, 0),
  }
}

/** Joins the daemons' key logs into one pair of tables that Wireshark takes as they are. */
export async function joinKeyLogs(topology: Topology, out: string): Promise<void> {
  const directory = join(out, 'wireshark')
  await mkdir(directory, { recursive: true, mode: 0o700 })
  for (const table of ['esp_sa', 'ikev2_decryption_table']) {
    const lines = new Set<string>()
    for (const { name } of [...nodesOf(topology), hostOf(topology, 'client')]) {
      const log = join(keyLogOf(out, name), table)
      if (!existsSync(log)) continue
      for (const line of (await readFile(log, 'utf8')).split('\n')) if (line !== '') lines.add(line)
    }
    await writeFile(join(directory, table), [...lines].map((line) => `${line}\n`).join(''), { mode: 0o600 })
  }
}

const LEAKS = 'leaks-client'
const PRIVATE = 'private-at-router'
const cable = (name: string): string => `cable-${name}`
const inside = (name: string): string => `inside-${name}`
