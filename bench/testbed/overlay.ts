/**
 * A directory, nodes and a client on machines reached by ssh. The client has a network namespace of its own with one
 * more address of its machine's network: its guard lets nothing out in clear, and the ssh connection would be that.
 * The directory is on the same machine, outside: what its address hears from the client goes around the circuit, so it
 * cannot be the server's.
 */
import { stringify } from 'yaml'
import { type Commands, GaveUp, until } from '#demo/command'
import type { PlaneKind } from '#telescope/plane'
import type { Testbed } from './hosts.ts'
import { Remote, type RemoteProgram } from './remote.ts'

const DIRECTORY_PORT = 9030
/** The veth pair between the client and its machine; link-local addresses, which nobody routes. */
const DEVICE = 'ippb-client'
const GATEWAY = '169.254.77.1'
const READY_MS = 120_000

export class TestbedOverlay {
  readonly client: Remote
  readonly server: Remote
  /** In the order of the path. */
  readonly nodes: readonly Remote[]
  readonly #testbed: Testbed
  readonly #directory: Remote
  readonly #namespace: string
  readonly #programs: (readonly [Remote, RemoteProgram])[] = []
  #server: RemoteProgram | undefined
  #directoryAddress = ''
  /** How the client's machine forwarded before; present while it forwards for us. */
  #before: string | undefined

  /** @param id of this run, in names of files and namespaces on all machines */
  constructor(commands: Commands, testbed: Testbed, id: string) {
    const remote = (machine: Testbed['client']) =>
      new Remote(commands, machine, testbed.ssh, `/run/${id}-${machine.name}`)
    this.#testbed = testbed
    this.#namespace = `${id}-client`
    this.client = remote(testbed.client)
    this.server = remote(testbed.server)
    this.nodes = testbed.nodes.map(remote)
    this.#directory = remote({ ...testbed.client, name: 'directory' })
  }

  get machines(): readonly Remote[] {
    return [this.client, ...this.nodes, this.server]
  }

  /** What runs `command` as an application of the client. */
  onClient(command: string): string {
    return `ip netns exec ${this.#namespace} ${command}`
  }

  async install(source: string): Promise<void> {
    // One after the other: machines may share what they are installed from.
    if (this.#testbed.install)
      for (const machine of this.machines) await machine.install(source, this.#testbed.folder)
  }

  /** Everything that stays while planes change: keys, the server of the measurement, the client's namespace. */
  async prepare(): Promise<void> {
    const { server, client } = this
    this.#server = await server.start('iperf3', `iperf3 -s -B ${server.machine.address}`)
    await this.#keygen(this.#directory, 'directory')
    for (const node of this.nodes) await this.#keygen(node, 'node')
    const state = '/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/$dev/proxy_arp'
    const toServer = `dev=$(ip -o route get ${server.machine.address} | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p')`
    const address = `ip -o route get ${server.machine.address} | sed -n 's/.* src \\([^ ]*\\).*/\\1/p'`
    this.#directoryAddress = (await client.sh(address)).trim()
    this.#before = await client.sh(`${toServer}; for f in ${state}; do echo "$(cat $f) $f"; done`)
    const inside = (line: string) => `ip -n ${this.#namespace} ${line}`
    await client.sh(
      [
        toServer,
        `ip netns add ${this.#namespace}`,
        `ip link add ${DEVICE} type veth peer name eth0 netns ${this.#namespace}`,
        `ip addr add ${GATEWAY}/32 dev ${DEVICE}`,
        `ip link set ${DEVICE} up`,
        `ip route add ${client.machine.address}/32 dev ${DEVICE}`,
        inside('link set lo up'),
        inside(`addr add ${client.machine.address}/32 dev eth0`),
        inside('link set eth0 up'),
        inside(`route add ${GATEWAY}/32 dev eth0`),
        inside(`route add default via ${GATEWAY} dev eth0`),
        `for f in ${state}; do echo 1 >$f; done`,
      ].join('\n'),
    )
  }

  /** Resolves when the circuit over all nodes is open. */
  async start(plane: PlaneKind): Promise<void> {
    const { folder } = this.#testbed
    const { nodes, client } = this
    const home = this.#directory.home
    const key = (await client.sh(`cat ${home}/directory.pub`)).trim()
    const listen = { address: this.#directoryAddress, port: DIRECTORY_PORT }
    const directory = { url: `http://${listen.address}:${listen.port}`, key }
    await this.#launch(this.#directory, 'directory', { listen, keys: `${home}/keys` }, () => undefined)
    // Addresses of a laboratory are private, where exits go only when told so.
    const exit = { protect: false, policy: ['accept 0.0.0.0/0'] }
    const roles = ['entry', 'middle', 'exit']
    for (const node of nodes) {
      const { name, address } = node.machine
      const config = { name, address, roles, exit, keys: `${node.home}/keys`, plane, directory }
      await this.#launch(node, 'node', config, () => undefined)
    }
    for (const node of nodes)
      await this.#answers(node, 'node', (status) => {
        const up = (status.overlay as { state: string }[]).filter(({ state }) => state === 'up')
        return status.listed && up.length === nodes.length - 1 ? undefined : `${up.length} tunnels are up`
      })
    const path = nodes.map(({ machine }) => machine.name)
    const circuit = { hops: path.length, path, sameNetwork: true, spares: 0, rotation: 0 }
    await this.#launch(
      client,
      'client',
      { plane, directory, circuit },
      (status) => (status.state === 'ready' ? undefined : `${status.state}, ${status.lastError}`),
      `ip netns exec ${this.#namespace} ${folder}/bin/ippriv`,
    )
  }

  /** The client first: its guard leaves with it. What was learnt in one plane is not carried over to the next. */
  async stop(): Promise<void> {
    for (const [remote, program] of this.#programs.splice(0).toReversed()) await remote.stop(program)
    for (const remote of [...this.machines, this.#directory])
      await remote.sh(`rm -rf ${remote.home}/state ${remote.home}/*.sock`, { always: true })
  }

  /** As it was before. Safe to repeat, and after whatever failed. */
  async clean(): Promise<void> {
    await this.stop()
    if (this.#server !== undefined) await this.server.stop(this.#server)
    if (this.#before !== undefined) {
      const restore = this.#before
        .trim()
        .split('\n')
        .map((line) => `echo ${line.replace(' ', ' >')}`)
      const script = [
        `ip netns del ${this.#namespace} || :`,
        `ip link del ${DEVICE} 2>/dev/null || :`,
        ...restore,
      ]
      await this.client.sh(script.join('\n'), { always: true })
    }
    for (const machine of [...this.machines, this.#directory]) await machine.clean()
  }

  async #keygen(remote: Remote, role: 'directory' | 'node'): Promise<void> {
    const made = `${this.#testbed.folder}/bin/ippriv keygen ${role} --dir ${remote.home}/keys --json`
    const { publicKey } = await remote.json<{ publicKey: string }>(
      `umask 77; mkdir -p ${remote.home}/keys; ${made}`,
    )
    if (role === 'directory') await remote.put('directory.pub', `${publicKey}\n`)
  }

  async #launch(
    remote: Remote,
    role: string,
    config: object,
    missing: (status: Record<string, unknown>) => string | undefined,
    program = `${this.#testbed.folder}/bin/ippriv`,
  ): Promise<void> {
    const { home } = remote
    const common = { state: `${home}/state`, control: `${home}/${role}.sock` }
    const file = await remote.put(`${role}.yaml`, stringify({ ...config, ...common }))
    this.#programs.push([remote, await remote.start(role, `${program} ${role} --config ${file}`)])
    await this.#answers(remote, role, missing)
  }

  async #answers(
    remote: Remote,
    role: string,
    missing: (status: Record<string, unknown>) => string | undefined,
  ): Promise<void> {
    const [, program] = this.#programs.findLast(([of]) => of === remote)!
    const ask = `${this.#testbed.folder}/bin/ippriv status --json --socket ${remote.home}/${role}.sock`
    await until(`waiting for ${role} ${remote.machine.name}`, READY_MS, async () => {
      const said = await remote.sh(`kill -0 ${program.pid} || { echo ended; exit 0; }; ${ask} || :`)
      if (said.startsWith('ended'))
        throw new GaveUp(
          new Error(`${role} ${remote.machine.name} ended: ${await remote.lastWords(program)}`),
        )
      const what = missing(JSON.parse(said) as Record<string, unknown>)
      if (what !== undefined) throw new Error(what)
      return true
    })
  }
}
