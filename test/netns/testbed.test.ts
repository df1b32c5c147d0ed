/**
 * `npm run bench -- planes --hosts FILE` as on real machines: five hosts on a switch, each with an ssh server, and a
 * sixth where the bench runs. Hosts are network namespaces, with a /run and accounts of their own.
 */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { stringify } from 'yaml'
import { Commands } from '#demo/command'
import { inNamespace } from '#demo/topology'
import { SSH_PORT, SshServers } from '../../bench/ssh-server.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const ID = `ippl${process.pid}`
const HOSTS = { bench: 1, client: 2, alder: 3, birch: 4, cedar: 5, server: 6 } as const
type Host = keyof typeof HOSTS
const addressOf = (host: Host): string => `192.168.77.${HOSTS[host]}`
const on = (host: Host, ...argv: string[]): string[] => inNamespace(`${ID}-${host}`, ...argv)
/** One more address of the client's machine. */
const CLIENT_ADDRESS = '192.168.77.102'

test('the planes are measured on machines that a file names, over ssh', { timeout: 600_000 }, async (t) => {
  const commands = new Commands(new AbortController().signal)
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-testbed-'))
  const hosts = Object.keys(HOSTS) as Host[]
  t.after(async () => {
    await commands.killAll(2000)
    const script = 'for n; do p=$(ip netns pids $n) && [ -n "$p" ] && kill -9 $p; ip netns del $n; done'
    const all = [...hosts, 'switch'].map((host) => `${ID}-${host}`)
    await commands.run(['sh', '-c', script, 'sh', ...all], { check: false, always: true })
    await rm(folder, { recursive: true, force: true })
  })
  await raise(commands, hosts)
  const ssh = new SshServers(commands, join(folder, 'ssh'))
  await ssh.prepare()
  for (const host of hosts.slice(1)) await ssh.start(host, addressOf(host), (...argv) => on(host, ...argv))

  const file = join(folder, 'hosts.yaml')
  const machine = (role: string, host: Host, address = addressOf(host)) => ({
    ...{ role, name: host, address },
    ssh: `root@${addressOf(host)}`,
  })
  const nodes = (['alder', 'birch', 'cedar'] as const).map((name) => machine('node', name))
  await writeFile(
    file,
    stringify({
      ...{ folder: ROOT, install: false, planes: ['userspace'] },
      ssh: ['-p', `${SSH_PORT}`, ...ssh.options],
      hosts: [machine('client', 'client', CLIENT_ADDRESS), ...nodes, machine('server', 'server')],
    }),
  )
  const out = join(folder, 'out')
  const bench = [process.execPath, join(ROOT, 'bench/run.ts'), 'planes', '--hosts', file, '--out', out]
  const argv = on('bench', ...bench, '--rounds', '1', '--seconds', '1')
  await commands.run(argv, { timeoutMs: 500_000 })

  const { samples } = JSON.parse(await readFile(join(out, 'planes.json'), 'utf8')) as {
    samples: { side: string; load: string; mbps?: number; ms?: number; cost?: Record<string, number> }[]
  }
  for (const side of ['direct', 'userspace']) {
    const of = (load: string) => samples.find((sample) => sample.side === side && sample.load === load)!
    assert.ok(of('idle').ms! > 0, `${side}: a round trip`)
    for (const load of ['1 down', '1 up', '5 down', '5 up'])
      assert.ok(of(load).mbps! > 0, `${side}, ${load}: something arrived`)
    const cost = of('1 down').cost!
    assert.deepEqual(Object.keys(cost), ['client', 'alder', 'birch', 'cedar', 'server'])
  }
  const { stdout } = await commands.run(on('client', 'sysctl', '-n', 'net.ipv4.ip_forward'))
  assert.equal(stdout.trim(), '0', 'the client’s machine forwards as little as before')
  const left = await commands.run(on('client', 'ip', '-o', 'link', 'show'))
  assert.doesNotMatch(left.stdout, /ippb-client/)
  assert.ok(existsSync(join(out, 'testbed-goodput.svg')))
})

/** Hosts on one switch. */
async function raise(commands: Commands, hosts: readonly Host[]): Promise<void> {
  const lines = [`netns add ${ID}-switch`, ...hosts.map((host) => `netns add ${ID}-${host}`)]
  for (const host of hosts)
    lines.push(`link add eth0 netns ${ID}-${host} type veth peer name ${host} netns ${ID}-switch`)
  await commands.run(['ip', '-batch', '-'], { input: `${lines.join('\n')}\n` })
  const switchLines = ['link add name br0 type bridge', 'link set br0 up']
  for (const host of hosts) switchLines.push(`link set ${host} master br0`, `link set ${host} up`)
  await commands.run(['ip', '-n', `${ID}-switch`, '-batch', '-'], { input: `${switchLines.join('\n')}\n` })
  for (const host of hosts)
    await commands.run(['ip', '-n', `${ID}-${host}`, '-batch', '-'], {
      input: `link set lo up\naddr add ${addressOf(host)}/24 dev eth0\nlink set eth0 up\n`,
    })
}
