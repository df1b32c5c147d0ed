/**
 * Two hosts, each a process with a UserPlane in a namespace of its own, joined by a cable:
 *
 *     namespace a                                   namespace b
 *     ippriv0 10.65.0.2 -- [plane] 198.18.1.1 ==== 198.18.1.2 [plane] -- ippriv0 10.66.0.2
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFile, execFileSync, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { after, before, describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { ReqId, Spi } from '#base/ids'
import { ANY, host, ip } from '#base/ip'
import type { UserPlaneOptions } from '#linux/user-plane'
import { type PlaneOperation, PRIORITY, REPLAY_WINDOW, reqId, type SaSpec } from '#telescope/plane'

const NS = { a: `ipp-ua-${process.pid}`, b: `ipp-ub-${process.pid}` } as const
type Side = keyof typeof NS
const OUTER = { a: ip('198.18.1.1'), b: ip('198.18.1.2') } as const
const INNER = { a: ip('10.65.0.2'), b: ip('10.66.0.2') } as const
const other = (side: Side): Side => (side === 'a' ? 'b' : 'a')

const run = (command: string, ...rest: string[]): string => execFileSync(command, rest, { encoding: 'utf8' })
const inside = (side: Side, ...command: string[]): string => run('ip', 'netns', 'exec', NS[side], ...command)

/** Undefined when this machine can run the test; otherwise what is missing. */
function missing(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root for network namespaces'
  if (spawnSync('ip', ['netns', 'list']).status !== 0) return 'needs ip(8) with network namespaces'
  return undefined
}

/** Results of the calls, as JSON: each test knows which it asked for. */
// biome-ignore lint/suspicious/noExplicitAny: JSON of several shapes, asserted on at once
type Answer = any

class PlaneHost {
  readonly #process: ChildProcess
  readonly #lines: Interface
  readonly #answers: AsyncIterator<string>

  constructor(side: Side, options: UserPlaneOptions) {
    const script = new URL('./plane-host.ts', import.meta.url).pathname
    this.#process = spawn(
      'ip',
      ['netns', 'exec', NS[side], process.execPath, script, JSON.stringify(options)],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    )
    this.#lines = createInterface({ input: this.#process.stdout! })
    this.#answers = this.#lines[Symbol.asyncIterator]()
  }

  get pid(): number {
    return this.#process.pid!
  }

  async call(name: string, argument?: unknown): Promise<Answer> {
    const hex = (field: string, value: unknown) =>
      field === 'key' ? Buffer.from(Object.values(value as object)).toString('hex') : value
    this.#process.stdin!.write(`${JSON.stringify({ call: name, argument }, hex)}\n`)
    const line = await this.#answers.next()
    assert.ok(!line.done, `plane host ended during ${name}`)
    const answer = JSON.parse(line.value)
    if (answer.error !== undefined) throw Object.assign(new Error(answer.where), { code: answer.error })
    return answer.result
  }

  /** What the process says without being asked. */
  async said(): Promise<Answer> {
    return JSON.parse((await this.#answers.next()).value)
  }

  /** Ends the process by its own `process.exit`. @returns how long that took, in ms. */
  async exit(): Promise<number> {
    const start = performance.now()
    const ended = new Promise((resolve) => this.#process.once('exit', resolve))
    this.#process.stdin!.write(`${JSON.stringify({ call: 'exit' })}\n`)
    await ended
    return performance.now() - start
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    const ended = new Promise((resolve) => this.#process.once('exit', resolve))
    this.#process.kill(signal)
    await ended
  }
}

const key = (seed: number): Uint8Array => Uint8Array.from({ length: 36 }, (_, i) => (i * 7 + seed) & 255)

function sa(from: Side, at: Side, spi: number, seed: number, more: Partial<SaSpec> = {}): PlaneOperation {
  return {
    kind: 'sa.install',
    sa: {
      source: OUTER[from],
      destination: OUTER[other(from)],
      spi: spi as Spi,
      flow: from === at ? 'outbound' : 'inbound',
      reqid: reqId(1) as ReqId,
      cipher: 'aes-256-gcm-16',
      key: key(seed),
      esn: true,
      replayWindow: REPLAY_WINDOW,
      ...more,
    },
  }
}

const removal = (from: Side, spi: number): PlaneOperation => ({
  kind: 'sa.remove',
  sa: { source: OUTER[from], destination: OUTER[other(from)], spi: spi as Spi },
})

function tunnel(at: Side): PlaneOperation[] {
  const out = { source: OUTER[at], destination: OUTER[other(at)], reqid: reqId(1) }
  const back = { source: OUTER[other(at)], destination: OUTER[at], reqid: reqId(1) }
  const policy = { action: 'protect', priority: PRIORITY.circuit } as const
  return [
    sa('a', at, 0x1001, 1),
    sa('b', at, 0x1002, 2),
    {
      kind: 'policy.install',
      policy: {
        ...policy,
        direction: 'out',
        selector: { source: host(INNER[at]), destination: ANY },
        templates: [out],
      },
    },
    {
      kind: 'policy.install',
      policy: {
        ...policy,
        direction: 'in',
        selector: { source: ANY, destination: host(INNER[at]) },
        templates: [back],
      },
    },
  ]
}

function ping(from: Side, ...options: string[]): boolean {
  const command = ['ip', 'netns', 'exec', NS[from], 'ping', '-n', '-q', '-c', '3', '-i', '0.1', '-W', '1']
  const done = spawnSync(
    command[0]!,
    [...command.slice(1), '-I', INNER[from], ...options, INNER[other(from)]],
    {
      encoding: 'utf8',
    },
  )
  return / 3 received/.test(done.stdout)
}

async function addressing(side: Side): Promise<void> {
  inside(side, 'ip', 'address', 'add', `${INNER[side]}/32`, 'dev', 'ippriv0')
  inside(
    side,
    'ip',
    'route',
    'add',
    `${INNER[other(side)]}/32`,
    'dev',
    'ippriv0',
    'src',
    INNER[side],
    'mtu',
    '1280',
  )
}

/** Captures on the cable at `side` while `during` runs; returns one text line per packet. */
async function capture(side: Side, filter: string, during: () => Promise<void> | void): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'ipp-capture-'))
  const file = join(folder, 'cable.pcap')
  const dump = spawn(
    'ip',
    [
      'netns',
      'exec',
      NS[side],
      'tcpdump',
      '--immediate-mode',
      '-U',
      '-Z',
      'root',
      '-nni',
      'eth0',
      '-w',
      file,
      filter,
    ],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  )
  try {
    await new Promise<void>((resolve, reject) => {
      dump.stderr!.on('data', (text) => String(text).includes('listening') && resolve())
      dump.once('exit', () => reject(new Error('tcpdump ended')))
    })
    await during()
    await sleep(200)
    const ended = new Promise((resolve) => dump.once('exit', resolve))
    dump.kill('SIGINT')
    await ended
    return run('tcpdump', '-vnnr', file)
      .split('\n')
      .filter((line) => line !== '')
  } finally {
    dump.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
}

const reason = missing()

/** What `iperf3 -J` says of the end, from a to b inside the tunnel. */
async function iperf(...load: readonly string[]): Promise<Answer> {
  const server = spawn('ip', ['netns', 'exec', NS.b, 'iperf3', '-s', '-1', '-B', INNER.b], {
    stdio: 'ignore',
  })
  try {
    const argv = ['netns', 'exec', NS.a, 'iperf3', '-J', '-c', INNER.b, '-B', INNER.a, ...load]
    for (let attempt = 1; ; attempt++) {
      const { stdout } = await promisify(execFile)('ip', argv).catch((error) => error as { stdout: string })
      const report = JSON.parse(stdout)
      if (report.error === undefined) return report.end
      // The server takes its time to listen.
      if (attempt === 40 || !/unable to connect/.test(report.error)) assert.fail(report.error)
      await sleep(250)
    }
  } finally {
    server.kill('SIGKILL')
  }
}

const MODES: readonly UserPlaneOptions[] = [
  {},
  { workers: 2, parallel: 'connection' },
  { workers: 3, parallel: 'packet' },
]

for (const options of MODES)
  describe(`UserPlane in two namespaces ${JSON.stringify(options)}`, { skip: reason ?? false }, () => {
    const hosts = {} as Record<Side, PlaneHost>

    before(async () => {
      for (const ns of Object.values(NS)) run('ip', 'netns', 'add', ns)
      run('ip', 'link', 'add', 'eth0', 'netns', NS.a, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', NS.b)
      for (const side of ['a', 'b'] as const) {
        inside(side, 'ip', 'link', 'set', 'lo', 'up')
        inside(side, 'ip', 'address', 'add', `${OUTER[side]}/24`, 'dev', 'eth0')
        inside(side, 'ip', 'link', 'set', 'eth0', 'up')
        hosts[side] = new PlaneHost(side, options)
        await hosts[side].call('open')
        await hosts[side].call('apply', tunnel(side))
        await addressing(side)
      }
    })

    after(async () => {
      for (const side of ['a', 'b'] as const) {
        await hosts[side]?.kill('SIGKILL')
        spawnSync('ip', ['netns', 'delete', NS[side]])
      }
    })

    test('ping crosses, and the cable shows ESP with constant headers only', async () => {
      const lines = await capture('b', 'not arp and not ip6', () => {
        assert.ok(ping('a', '-Q', '0xb9'), 'a pings b')
        assert.ok(ping('b', '-t', '17'), 'b pings a')
      })
      const headers = lines.filter((line) => /^\d/.test(line))
      assert.equal(headers.length, 12)
      for (const header of headers) assert.match(header, /tos 0x0, ttl 64, .*flags \[none\], proto ESP/)
    })

    test('an SA that is to announce its packets does, once', async () => {
      const fresh = (at: Side): PlaneOperation => sa('a', at, 0x1009, 9, { announce: at === 'b' })
      await hosts.b.call('apply', [fresh('b')])
      assert.ok(ping('a'))
      assert.deepEqual(await hosts.b.call('heard'), [], 'the old SA says nothing')
      await hosts.a.call('apply', [fresh('a')])
      assert.ok(ping('a') && ping('a'))
      assert.deepEqual(await hosts.b.call('heard'), [0x1009])
      await hosts.a.call('apply', [removal('a', 0x1009)])
      await hosts.b.call('apply', [removal('a', 0x1009)])
    })

    test('the device asks for packets of the inner MTU', () => {
      assert.ok(ping('a', '-M', 'do', '-s', '1252'), '1280 octets with DF pass')
      assert.ok(!ping('a', '-M', 'do', '-s', '1253'), '1281 octets with DF do not')
      assert.ok(ping('a', '-M', 'dont', '-s', '4000'), 'the kernel fragments before the tunnel')
    })

    test('TCP crosses', async (t: TestContext) => {
      if (spawnSync('iperf3', ['--version']).status !== 0) return t.skip('needs iperf3')
      const end = await iperf('-t', '2')
      const bits = end.sum_received.bits_per_second
      t.diagnostic(`TCP goodput of one layer, both hosts on this machine: ${(bits / 1e6).toFixed(0)} Mbit/s`)
      assert.ok(bits > 1e6)
    })

    test('datagrams arrive in the order they were sent', async (t: TestContext) => {
      if (spawnSync('iperf3', ['--version']).status !== 0) return t.skip('needs iperf3')
      // 5,000 a second, so that workers meet.
      const end = await iperf('-u', '-b', '8M', '-l', '200', '-t', '3')
      const { packets, out_of_order } = end.streams[0].udp
      assert.ok(packets > 1000, `${packets} packets`)
      assert.equal(out_of_order, 0)
      for (const side of ['a', 'b'] as const)
        for (const sa of await hosts[side].call('counters'))
          assert.deepEqual([sa.replayed, sa.corrupted], [0, 0])
    })

    test('counters and drops are told', async () => {
      const counters = await hosts.a.call('counters')
      assert.equal(counters.length, 2)
      for (const { packets, bytes } of counters) assert.ok(packets > 6 && bytes > 6 * 84)
      const drops = await hosts.a.call('drops')
      assert.equal(drops.XfrmInStateProtoError, 0)
    })

    test('a refused operation is named, and the plane goes on', async () => {
      await assert.rejects(hosts.a.call('apply', [sa('a', 'a', 0x1001, 1)]), { code: 'IPP_PLANE_OPERATION' })
      assert.ok(ping('a'))
    })

    test('ESP to an unknown SPI draws no ICMP', async () => {
      await hosts.a.call('apply', [sa('a', 'a', 0x2001, 3)]) // newer at the sender, unknown to the receiver
      const lines = await capture('b', 'icmp', () => assert.ok(!ping('a')))
      assert.deepEqual(lines, [])
      assert.ok((await hosts.b.call('drops')).XfrmInNoStates >= 3)
      await hosts.b.call('apply', [sa('a', 'b', 0x2001, 3)])
      assert.ok(ping('a'), 'a rekeyed SA carries on')
    })

    test('UDP encapsulation: ESP through port 4500, beside IKE', async () => {
      const encapsulation = { sourcePort: 4500, destinationPort: 4500 }
      for (const side of ['a', 'b'] as const) {
        await hosts[side].call('listen', { address: OUTER[side], port: 4500 })
        await hosts[side].call('apply', [
          sa('a', side, 0x3001, 4, { encapsulation }),
          sa('b', side, 0x3002, 5, { encapsulation }),
        ])
      }
      const lines = await capture('b', 'not arp and not ip6', () => assert.ok(ping('a')))
      const headers = lines.filter((line) => /^\d/.test(line))
      assert.equal(headers.length, 6)
      for (const header of headers) assert.match(header, /tos 0x0, ttl 64, .*flags \[none\], proto UDP/)
      assert.equal(await hosts.a.call('datagrams'), 0, 'no ESP at the socket of IKE')
      for (const side of ['a', 'b'] as const)
        await hosts[side].call('apply', [removal('a', 0x3001), removal('b', 0x3002)])
      assert.ok(ping('a'))
    })

    test('without its SA a policy drops: nothing leaves', async () => {
      await hosts.a.call('apply', [removal('a', 0x1001), removal('a', 0x2001)])
      const lines = await capture('b', 'ip', () => assert.ok(!ping('a')))
      assert.deepEqual(lines, [])
      assert.ok((await hosts.a.call('drops')).XfrmOutNoStates >= 3)
    })

    test('close removes the device; opening again works; a second owner of the device is refused', async () => {
      await hosts.a.call('close')
      await hosts.a.call('close')
      assert.doesNotMatch(inside('a', 'ip', 'link'), /ippriv0/)
      await assert.rejects(hosts.a.call('counters'), { code: 'IPP_PLANE_DEAD' })
      await hosts.a.call('open')
      assert.match(inside('a', 'ip', 'link'), /ippriv0/)
      const second = new PlaneHost('a', options)
      try {
        await assert.rejects(second.call('open'), { code: 'IPP_PLANE_UNAVAILABLE' })
      } finally {
        await second.kill('SIGKILL')
      }
    })

    test('process.exit does not wait for packets', async () => {
      const third = new PlaneHost('a', options)
      try {
        await hosts.a.call('close')
        await third.call('open')
        const took = await third.exit()
        assert.ok(took < 5000, `exit took ${took} ms`)
        assert.doesNotMatch(inside('a', 'ip', 'link'), /ippriv0/)
      } finally {
        await third.kill('SIGKILL')
      }
    })

    test('a plane whose device is taken away says that it died', async () => {
      await hosts.a.call('open')
      inside('a', 'ip', 'link', 'delete', 'ippriv0')
      assert.match((await hosts.a.said()).failure, /read ippriv0/)
      await assert.rejects(hosts.a.call('apply', []), { code: 'IPP_PLANE_DEAD' })
      await hosts.a.call('close')
      await hosts.a.call('open')
    })

    test('a killed process leaves nothing', async () => {
      await hosts.b.kill('SIGKILL')
      const lines = await capture('a', 'ip', () => assert.ok(!ping('b')))
      assert.deepEqual(lines, [])
      assert.doesNotMatch(inside('b', 'ip', 'link'), /ippriv0/)
      assert.doesNotMatch(inside('b', 'ip', 'route'), /ippriv0/)
      assert.ok(!existsSync(`/proc/${hosts.b.pid}/fd`))
    })
  })
