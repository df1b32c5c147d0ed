/**
 * How much faster a relay of two workers is than one of one. The machine has no processors to spare for whoever makes
 * and takes the packets, so they are not there while it is measured: the relay is stopped (SIGSTOP), its sockets are
 * filled with a burst, the source sleeps again, and the relay goes on (SIGCONT). The rate is that of what comes out
 * between the first and the last tenth: neither threads that awake nor what is left for one alone have a part in it.
 * What leaves is dropped in the driver's receive path at the other end of the cable.
 */
import { readFileSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { constants, cpus, setPriority, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { type Background, Commands, lastLine, until } from '#demo/command'
import { inNamespace } from '#demo/topology'
import type { Bench, BenchContext, Report } from './bench.ts'
import { processSeconds } from './bulk.ts'
import { draw, type Frame, flat, fold, type Profile } from './flame.ts'
import { CIRCUITS, NEXT, neighbour, RELAY } from './parallel/circuits.ts'
import { Source } from './parallel/filler.ts'
import type { SealerCipher, SealerData } from './parallel/sealer.ts'
import { median } from './stats.ts'

export const bench: Bench = {
  name: 'parallel',
  summary: 'a relay’s forwarding rate, and ciphers alone, against workers',
  rounds: 5,
  minutesPerRound: 1,
  options: [
    ['--packets <n>', 'packets of a burst', '20000'],
    ['--flame <file>', 'also draw a flame graph of one worker'],
    ['--workers <n>', 'most workers', String(Math.min(4, cpus().length))],
  ],
  run,
}

const CIPHERS = ['aes-256-gcm-16', 'chacha20-poly1305'] as const
const SEALERS: readonly SealerCipher[] = [...CIPHERS, 'aes-128-cbc-sha1']
/** Octets inside two layers, so that what arrives has about 1,400. */
const LENGTH = 1304
const WARMUPS = 3
const BURSTS = 9
const SEAL_MS = 400
/** Nothing more comes after this long. */
const QUIET_MS = 150
/** Milliseconds between looks at how many came out. */
const LOOK = 2
const DEVICE = 'outside'
/** Known to each other from the start: whoever has to ask for one loses packets of a burst meanwhile. */
const MAC = { relay: '02:00:00:00:00:01', outside: '02:00:00:00:00:02' } as const

interface RelaySample {
  readonly cipher: string
  readonly parallel: string
  readonly workers: number
  readonly round: number
  readonly packetsPerSecond: number
  /** Processor time of the relay, all threads and the kernel on their behalf. */
  readonly microseconds: number
  /** Of all bursts together. */
  readonly lost: number
}

interface Look {
  /** Milliseconds. */
  readonly at: number
  readonly count: number
}

interface SealSample {
  readonly cipher: string
  readonly workers: number
  readonly round: number
  readonly packetsPerSecond: number
}

async function run(context: BenchContext): Promise<Report> {
  const { signal, say, options, rounds } = context
  const most = Number(options.workers)
  const packets = Number(options.packets)
  const commands = new Commands(signal)
  const id = `ippq${process.pid}`
  const home = await mkdtemp(join(tmpdir(), 'ippriv-bench-'))
  const relays: RelaySample[] = []
  const seals: SealSample[] = []
  try {
    await raise(commands, id)
    const counts = Array.from({ length: most }, (_, i) => i + 1)
    for (let round = 1; round <= rounds; round++) {
      for (const cipher of SEALERS)
        for (const workers of counts)
          seals.push({ cipher, workers, round, packetsPerSecond: await sealAlone(cipher, workers) })
      for (const cipher of CIPHERS) {
        const source = new Source(inNamespace(`${id}-outside`), cipher, LENGTH)
        try {
          for (const workers of counts)
            for (const parallel of workers === 1 ? ['connection'] : ['connection', 'packet']) {
              const log = join(home, `relay-${round}-${cipher}-${workers}-${parallel}.log`)
              const burst = { commands, id, log, source, packets, options: { workers, parallel, cipher } }
              const measured = await relayRate(burst)
              relays.push({ cipher, parallel, workers, round, ...measured })
              say(
                `${cipher} ${workers} ${parallel}: ${Math.round(measured.packetsPerSecond)} packets per second`,
              )
            }
        } finally {
          await source.close()
        }
      }
      say(`round ${round} of ${rounds} is done`)
    }
    if (typeof options.flame === 'string') {
      const drawn = await flame(commands, id, home, packets)
      await writeFile(
        options.flame,
        draw(drawn, 'A relay of the userspace plane: opens two layers, seals one'),
      )
      for (const { name, share } of flat(drawn).slice(0, 16)) say(`${(100 * share).toFixed(1)} %  ${name}`)
    }
    return report(rounds, most, relays, seals)
  } finally {
    await commands.killAll(2000)
    await fell(commands, id)
    await rm(home, { recursive: true, force: true })
  }
}

/** The relay and everything outside of it, with one cable between them. */
async function raise(commands: Commands, id: string): Promise<void> {
  await fell(commands, id)
  const addresses = [NEXT, ...Array.from({ length: CIRCUITS }, (_, i) => neighbour(i))]
  const lines = [
    `netns add ${id}-relay`,
    `netns add ${id}-outside`,
    `link add ${DEVICE} netns ${id}-relay address ${MAC.relay} type veth peer name relay netns ${id}-outside address ${MAC.outside}`,
  ]
  await commands.run(['ip', '-batch', '-'], { input: `${lines.join('\n')}\n` })
  const configure = (
    host: keyof typeof MAC,
    device: string,
    own: readonly string[],
    others: readonly string[],
  ) =>
    commands.run(inNamespace(`${id}-${host}`, 'ip', '-batch', '-'), {
      input: `${[
        'link set lo up',
        `link set ${device} up`,
        ...own.map((address) => `addr add ${address}/32 dev ${device}`),
        ...others.flatMap((address) => [
          `route add ${address}/32 dev ${device}`,
          `neigh add ${address} lladdr ${host === 'relay' ? MAC.outside : MAC.relay} dev ${device} nud permanent`,
        ]),
      ].join('\n')}\n`,
    })
  await configure('relay', DEVICE, [RELAY], addresses)
  await configure('outside', 'relay', addresses, [RELAY])
  const chain = 'chain sink { type filter hook ingress device "relay" priority 0; ip protocol esp drop; }'
  await commands.run(inNamespace(`${id}-outside`, 'nft', '-f', '-'), {
    input: `table netdev sink { ${chain}; }\n`,
  })
}

async function fell(commands: Commands, id: string): Promise<void> {
  for (const host of ['relay', 'outside'])
    await commands.run(['ip', 'netns', 'del', `${id}-${host}`], { check: false, always: true })
}

/** What the one worker of a relay does with its time while bursts pass. */
async function flame(commands: Commands, id: string, home: string, packets: number): Promise<Frame> {
  const cipher = 'aes-256-gcm-16'
  const source = new Source(inNamespace(`${id}-outside`), cipher, LENGTH)
  try {
    const profiler = ['--cpu-prof', `--cpu-prof-dir=${home}`, '--cpu-prof-interval=200']
    const log = join(home, 'relay-flame.log')
    await relayRate({ commands, id, log, source, packets, options: { cipher }, profiler })
  } finally {
    await source.close()
  }
  // One profile of each thread: the worker's is the one that works.
  for (const name of (await readdir(home)).filter((file) => file.endsWith('.cpuprofile'))) {
    const profile = JSON.parse(await readFile(join(home, name), 'utf8')) as Profile
    if (profile.nodes.some(({ callFrame }) => callFrame.functionName === '#work')) return fold(profile)
  }
  throw new Error('no profile of the worker was written')
}

interface Burst {
  readonly commands: Commands
  readonly id: string
  readonly log: string
  readonly source: Source
  readonly packets: number
  readonly options: object
  readonly profiler?: readonly string[]
}

/** The median of several bursts through a relay of its own. */
async function relayRate({ commands, id, log, source, packets, options, profiler = [] }: Burst) {
  const program = join(import.meta.dirname, 'parallel/relay.ts')
  // What else the machine does should not have a part in it.
  const alone = ['nice', '-n', '-19', process.execPath]
  const argv = inNamespace(`${id}-relay`, ...alone, ...profiler, program, JSON.stringify(options))
  const relay = commands.start(argv, log)
  try {
    await until('the relay', 20_000, async () =>
      (await readFile(log, 'utf8')).includes('ready\n') ? true : undefined,
    )
    const rates: number[] = []
    const costs: number[] = []
    let lost = 0
    source.forget()
    for (let i = 0; i < WARMUPS + 2 * BURSTS && rates.length < BURSTS; i++) {
      const { count, rate, cpu } = await oneBurst(relay, source, packets)
      if (i < WARMUPS || rate === undefined) continue
      rates.push(rate)
      costs.push((1e6 * cpu) / count)
      lost += packets - count
    }
    if (rates.length < BURSTS)
      throw new Error(`the machine is too busy to watch bursts of ${packets} packets`)
    return { packetsPerSecond: median(rates), microseconds: median(costs), lost }
  } finally {
    await relay.stop(5000)
  }
}

async function oneBurst(relay: Background, source: Source, packets: number) {
  const pid = relay.pid!
  process.kill(pid, 'SIGSTOP')
  await source.send(packets)
  // Interrupts of the last packets, and the source itself, are over.
  await sleep(50)
  const cpu = processSeconds(pid)
  const looks = await watch(
    () => forwarded(source.pid),
    () => process.kill(pid, 'SIGCONT'),
  )
  const { count } = looks.at(-1)!
  if (count < packets / 2) {
    process.kill(pid, 'SIGUSR1')
    await sleep(QUIET_MS)
    const dropped = lastLine(await readFile(relay.log, 'utf8'))
    throw new Error(`${count} of ${packets} packets came out; dropped: ${dropped}`)
  }
  return { count, rate: steadyRate(looks), cpu: processSeconds(pid) - cpu }
}

/** How many packets had come out when. A socket of the kernel may have lost a few while it was filled: not all do. */
async function watch(counter: () => number, begin: () => void): Promise<readonly Look[]> {
  const before = counter()
  const looks: Look[] = [{ at: performance.now(), count: 0 }]
  // Both processors are the relay's, and a look must not wait for either.
  setPriority(constants.priority.PRIORITY_HIGHEST)
  try {
    begin()
    while (performance.now() - looks.at(-1)!.at < QUIET_MS) {
      const count = counter() - before
      if (count > looks.at(-1)!.count) looks.push({ at: performance.now(), count })
      await sleep(LOOK)
    }
  } finally {
    setPriority(constants.priority.PRIORITY_NORMAL)
  }
  return looks
}

/** Packets per second; undefined when there were too few looks to tell, for the machine was not ours for a while. */
function steadyRate(looks: readonly Look[]): number | undefined {
  const { count } = looks.at(-1)!
  const first = looks.find((look) => look.count >= count / 10)!
  const last = looks.findLast((look) => look.count <= count - count / 10)!
  if (last.count - first.count < count / 2) return undefined
  return (1000 * (last.count - first.count)) / (last.at - first.at)
}

/** Packets that reached the far end of the cable. */
function forwarded(pid: number): number {
  const line = readFileSync(`/proc/${pid}/net/dev`, 'utf8')
    .split('\n')
    .find((text) => text.trim().startsWith('relay:'))!
  return Number(line.trim().split(/\s+/)[2])
}

/** Packets per second that threads seal which do nothing else. */
async function sealAlone(cipher: SealerCipher, threads: number): Promise<number> {
  const barrier = new SharedArrayBuffer(4)
  const data: SealerData = { cipher, length: LENGTH, ms: SEAL_MS, barrier, threads }
  const sealed = await Promise.all(
    Array.from(
      { length: threads },
      () =>
        new Promise<number>((resolve, reject) => {
          const worker = new Worker(new URL('./parallel/sealer.ts', import.meta.url), { workerData: data })
          worker.once('message', resolve)
          worker.once('error', reject)
        }),
    ),
  )
  return (1000 * sealed.reduce((sum, count) => sum + count, 0)) / SEAL_MS
}

function report(
  rounds: number,
  most: number,
  relays: readonly RelaySample[],
  seals: readonly SealSample[],
): Report {
  const of = (cipher: string, parallel: string, workers: number) =>
    relays
      .filter((s) => s.cipher === cipher && s.workers === workers)
      .filter((s) => s.workers === 1 || s.parallel === parallel)
  const rates = (cipher: string, parallel: string, workers: number) =>
    of(cipher, parallel, workers).map((s) => s.packetsPerSecond)
  const costs = (cipher: string, parallel: string, workers: number) =>
    median(of(cipher, parallel, workers).map((s) => s.microseconds))
  const alone = (cipher: string, workers: number) =>
    seals.filter((s) => s.cipher === cipher && s.workers === workers).map((s) => s.packetsPerSecond)
  const counts = Array.from({ length: most }, (_, i) => i + 1)
  const columns = [...counts.map((n) => `${n}, packets/s`), ...counts.slice(1).map((n) => `${n} over 1`)]
  const numbers = (samples: (workers: number) => readonly number[]) => [
    ...counts.map((n) => median(samples(n))),
    ...counts.slice(1).map((n) => medianRatio(samples(n), samples(1))),
  ]
  const modes = CIPHERS.flatMap((cipher) => ['connection', 'packet'].map((mode) => [cipher, mode] as const))
  return {
    title: `Workers of a relay, medians of ${rounds} rounds`,
    tables: [
      {
        title: `a relay that opens two layers and seals one, by workers`,
        columns: ['cipher, mode', ...columns],
        rows: modes.map(([cipher, mode]) => [
          `${cipher}, ${mode}`,
          ...numbers((n) => rates(cipher, mode, n)),
        ]),
      },
      {
        title: 'processor time of the relay per packet, us, by workers',
        columns: ['cipher, mode', ...counts.map(String)],
        rows: modes.map(([cipher, mode]) => [
          `${cipher}, ${mode}`,
          ...counts.map((n) => costs(cipher, mode, n)),
        ]),
      },
      {
        title: `sealing ${LENGTH} octets and nothing else, by threads`,
        columns: ['cipher', ...columns],
        rows: SEALERS.map((cipher) => [cipher, ...numbers((n) => alone(cipher, n))]),
      },
    ],
    targets: ['connection', 'packet'].map((mode) => ({
      what: `two workers over one, AES-256-GCM, ${mode}`,
      measured: medianRatio(rates('aes-256-gcm-16', mode, 2), rates('aes-256-gcm-16', mode, 1)),
      bound: 1.6,
      sense: 'least',
    })),
    samples: { relays, seals },
    notes: [
      'The relay is stopped while its sockets are filled; the source sleeps while the relay works. It goes before whatever else runs (nice -19), and nothing of the bench does but a look at a counter every two milliseconds. The rate is of what comes out between the first and the last tenth of a burst.',
      'What is said to be over what is the median of the rounds’ own ratios: what else the machine does changes from round to round, and less within one.',
      `In the mode “connection” a worker receives whole SAs, by their SPIs. Here ${CIRCUITS} neighbours send, whose SAs split evenly; what comes from one peer alone is received by one worker, however many there are.`,
      'What leaves crosses one cable and is dropped at its far end, in the time of the worker that sent it.',
      'The ciphers alone show what this machine’s processors gain by working at once. AES-CBC with HMAC-SHA-1 is the paper’s; no proposal of ours has it.',
    ],
  }
}

/** Of samples by round. */
const medianRatio = (over: readonly number[], under: readonly number[]): number =>
  median(over.map((each, round) => each / under[round]!))
