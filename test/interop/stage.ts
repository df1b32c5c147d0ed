/** Our programs and stock ones on one Internet, in namespaces, and what hosts there do. */
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse, stringify } from 'yaml'
import { readNodeKeys } from '#config/keys'
import { encodeSpki, readPublicKey } from '#crypto/public-key'
import type { EspCipher } from '#crypto/suites'
import { Commands } from '#demo/command'
import { contentDigest, MEBIBYTE, PAGE_MARK } from '#demo/content'
import {
  type CircuitStatus,
  type ClientStatus,
  clientReady,
  configOf,
  type DirectoryStatus,
  defaultCircuit,
  prepareDaemons,
  ready,
  socketOf,
} from '#demo/daemons'
import { Scene } from '#demo/scene'
import {
  fell,
  type Host,
  hostOf,
  inNamespace,
  planTopology,
  raise,
  runDirectory,
  type Topology,
} from '#demo/topology'
import { controlRequest } from '#linux/control'
import type { PlaneKind } from '#telescope/plane'
import { Charon } from './charon.ts'
import type { Gateway } from './routers.ts'

/** For whatever is waited for: inside User-Mode Linux everything takes several times longer. */
export const LIMIT = 120_000
const OCTETS = MEBIBYTE + 7

export class Stage {
  readonly scene: Scene

  /** `names`: of the hosts of the demonstration's Internet that are there. */
  constructor(out: string, plane: PlaneKind, names: readonly string[]) {
    const whole = planTopology(`ippd${process.pid}`)
    const topology: Topology = { ...whole, hosts: whole.hosts.filter((host) => names.includes(host.name)) }
    this.scene = new Scene(new Commands(new AbortController().signal), topology, {
      plane,
      hops: 3,
      cipher: 'aes-256-gcm-16',
      out,
      keep: false,
      lossPercent: 0,
      mebibytes: 0,
      userModeLinux: plane === 'xfrm',
      say: (text) => process.stderr.write(`${text}\n`),
    })
  }

  host(name: string): Host {
    return hostOf(this.scene.topology, name)
  }

  /** A daemon there; `tag` tells its log and files from those of others. `root`: where its program is, if not here. */
  charon(host: string, tag = 'charon', root?: string): Charon {
    const { commands, topology, options } = this.scene
    const home = join(runDirectory(topology.id), `${host}-${tag}`)
    const log = join(options.out, `${host}-${tag}.log`)
    return new Charon(commands, this.host(host).namespace, home, log, root)
  }

  /** Hosts, keys and configuration files; no daemon runs yet. */
  async prepare(): Promise<void> {
    const { commands, topology, options } = this.scene
    await Promise.all([raise(commands, topology), prepareDaemons(commands, topology, options)])
  }

  /** Starts the directory, the web server, and then nodes. */
  async startNodes(names: readonly string[]): Promise<void> {
    const directory = this.scene.start(this.host('directory'))
    const origin = this.scene.startOrigin()
    await ready<DirectoryStatus>(directory, LIMIT, () => undefined)
    for (const name of names) this.scene.start(this.host(name))
    await origin
  }

  /** A node of ours, as whoever configures a stock client knows it. */
  async gateway(name: string): Promise<Gateway> {
    const { nodeId, ike } = await readNodeKeys(this.keysOf(name))
    return { name, nodeId, address: this.host(name).address, ikeKey: ike.publicKey }
  }

  // -------------------------------------------------------------------------------------------- our client

  async restartClient(path: readonly string[], cipher: EspCipher): Promise<void> {
    await this.scene.daemons.get('client')?.process.stop(30_000)
    await this.amend('client', { circuit: { path, cipher, sameNetwork: true } })
    this.scene.start(this.host('client'))
  }

  /** The client's own circuit, once it is another than `gone`. */
  async circuit(gone?: CircuitStatus): Promise<CircuitStatus> {
    const status = await ready<ClientStatus>(this.scene.daemons.get('client')!, LIMIT, (status) =>
      gone !== undefined && defaultCircuit(status)?.id === gone.id
        ? 'it keeps the old circuit'
        : clientReady(status),
    )
    return defaultCircuit(status)!
  }

  async build(...path: readonly string[]): Promise<CircuitStatus> {
    return (await this.request('client', 'circuits.build', { path })) as CircuitStatus
  }

  /** A page and a file go through a circuit and come out at its exit. */
  async carries(circuit: CircuitStatus, exit: string, cipher: EspCipher): Promise<string> {
    assert.equal(circuit.cipher, cipher)
    const mbps = await this.verified('client', exit, circuit.privateAddresses.at(-1)!)
    return `${circuit.path.join(' > ')}: page and ${OCTETS} octets verified, ${mbps.toFixed(1)} Mbit/s`
  }

  /** A page, and a file of known octets, which a host gets under the address of `exit`. Returns Mbit/s. */
  async verified(host: string, exit: string, from?: string): Promise<number> {
    const { traffic } = this.scene
    const there = this.host(host)
    assert.ok((await traffic.page(there, '/', from)).includes(PAGE_MARK))
    assert.equal((await traffic.page(there, '/whoami', from)).trim(), this.host(exit).address)
    const { octets, sha256, mbps } = await traffic.download(there, OCTETS, from)
    assert.deepEqual([octets, sha256], [OCTETS, contentDigest(OCTETS)])
    return mbps
  }

  // -------------------------------------------------------------------------------------------- any host

  /** Asks the daemon of a host. */
  async request(name: string, method: string, parameters: object): Promise<unknown> {
    return await controlRequest(socketOf(this.scene.topology, name), method, { ...parameters }, LIMIT)
  }

  /** Changes a daemon's configuration; it reads that when it starts. */
  async amend(name: string, changes: object): Promise<void> {
    const file = configOf(this.scene.options.out, name)
    await writeFile(file, stringify({ ...parse(await readFile(file, 'utf8')), ...changes }))
  }

  /** A host gets another address on its one device. */
  async relocate({ namespace, gateway }: Host, from: string, to: string): Promise<void> {
    const batch = [
      `addr add ${to}/24 dev eth0`,
      `addr del ${from}/24 dev eth0`,
      // Of the same prefix the second address goes with the first.
      `addr replace ${to}/24 dev eth0`,
      `route replace default via ${gateway}`,
    ]
    const input = `${batch.join('\n')}\n`
    await this.scene.commands.run(inNamespace(namespace, 'ip', '-batch', '-'), { input })
  }

  keysOf(name: string): string {
    return join(runDirectory(this.scene.topology.id), name, 'keys')
  }

  async clear(): Promise<void> {
    await this.scene.commands.killAll(5000)
    await fell(this.scene.commands, this.scene.topology.id)
  }
}

export function pem(key: Uint8Array): string {
  const base64 = Buffer.from(encodeSpki(readPublicKey(key)!)).toString('base64')
  return `-----BEGIN PUBLIC KEY-----\n${base64.replaceAll(/.{64}/g, '$&\n')}\n-----END PUBLIC KEY-----\n`
}

export function lastLines(text: string): string {
  return text.trim().split('\n').slice(-6).join('; ')
}
