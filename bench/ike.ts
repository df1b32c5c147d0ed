import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Bench, BenchContext, Report, Table, Target } from './bench.ts'
import type { GuestOptions, GuestResult, Memory, Sample } from './ike/guest.ts'
import { median } from './stats.ts'

/** How fast a responder takes new peers, beside stock strongSwan, and what each of them costs in memory. */
export const bench: Bench = {
  name: 'ike',
  summary: 'IKE handshakes per second as responder beside strongSwan, and memory per IKE SA (needs root)',
  options: [
    ['--handshakes <n>', 'per round and responder', '960'],
    ['--associations <n>', 'IKE SAs for the measurement of memory', '10000'],
    ['--only <text>', 'what has this in its name: a responder, "memory" or "refusal"', ''],
  ],
  rounds: 5,
  run,
}

async function run(context: BenchContext): Promise<Report> {
  const { rounds, options, signal, say } = context
  const namespace = `ippb${process.pid}`
  const folder = await mkdtemp(join(tmpdir(), 'ippriv-bench-'))
  try {
    await ip('netns', 'add', namespace)
    await ip('-n', namespace, 'link', 'set', 'lo', 'up')
    await ip('-n', namespace, 'route', 'add', 'local', '10.77.0.0/16', 'dev', 'lo')
    const handshakes = Number(options.handshakes)
    const associations = Number(options.associations)
    const only = String(options.only)
    const result = await inGuest({ namespace, folder, rounds, handshakes, associations, only }, signal, say)
    return report(result)
  } finally {
    await ip('netns', 'del', namespace)
    await rm(folder, { recursive: true, force: true })
  }
}

async function ip(...args: readonly string[]): Promise<void> {
  await promisify(execFile)('ip', args)
}

async function inGuest(
  options: GuestOptions,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<GuestResult> {
  const node = [process.execPath, '--disable-warning=ExperimentalWarning']
  const guest = [...node, join(import.meta.dirname, 'ike/guest.ts'), JSON.stringify(options)]
  const child = spawn('ip', ['netns', 'exec', options.namespace, ...guest], {
    stdio: ['ignore', 'pipe', 'pipe'],
    signal,
  })
  const output: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk))
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    for (const line of text.trimEnd().split('\n')) say(line)
  })
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`the measurement ended with ${code}`)
  return JSON.parse(Buffer.concat(output).toString()) as GuestResult
}

const KIB = 1024

function report({ samples, memory, refusal }: GuestResult): Report {
  const subjects = [...new Set(samples.map(({ subject }) => subject))]
  const of = (subject: string, what: (sample: Sample) => number): number =>
    median(samples.filter((sample) => sample.subject === subject).map(what))
  const cpu = (subject: string) => of(subject, ({ cpuMicroseconds }) => cpuMicroseconds)
  const wall = (subject: string) => of(subject, ({ wallMicroseconds }) => wallMicroseconds)
  const share = (subject: string) => of(subject, (sample) => shareOf(sample, subject))
  const times = (what: string, measured: number, bound: number): Target[] =>
    Number.isNaN(measured) ? [] : [{ what, measured, bound, sense: 'least', unit: 'x' }]
  return {
    title: 'IKEv2 responder',
    tables: [
      ...(subjects.length === 0 ? [] : [handshakes(subjects, cpu, share, wall)]),
      ...(refusal === undefined ? [] : [refusals(refusal)]),
      ...(memory === undefined ? [] : [memories(memory)]),
    ],
    targets: [
      ...times(
        'rate per core, of that of strongSwan (classic, by CPU time)',
        cpu('strongSwan, classic, one core') / cpu('ours, classic, one core'),
        0.5,
      ),
      ...['classic', 'ML-KEM'].flatMap((kind) =>
        times(
          `rate on all cores, of that on one (${kind}, by CPU time of the busiest core)`,
          share(`ours, ${kind}, one core`) / share(`ours, ${kind}, all cores`),
          1.5,
        ),
      ),
      ...times(
        'rate per core of resumptions, of that of full handshakes (ML-KEM, our default, by CPU time)',
        cpu('ours, ML-KEM, one core') / cpu('ours, resumed, one core'),
        3,
      ),
      ...(memory === undefined ? [] : [heapTarget(memory)]),
    ],
    notes: [
      'CPU is of all threads of the responder. A rate is what its cores give if nothing else runs on them, one over the time of the busiest: that of its busiest thread, or its share of all threads if that is more.',
      'Initiators send in batches and wait, so "us each here" is of the responder alone but for the pipes between its threads and the first and last of a batch.',
      'Resumed is IKE_SESSION_RESUME and IKE_AUTH. With fresh keys: what our own initiators do then, at once, by policy: IKE SA and Child SA rekeyed, a key exchange with ML-KEM each, and a new ticket. Of that only the CPU time is comparable.',
      ...resumptionNote(cpu('ours, classic, one core') / cpu('ours, resumed, one core')),
      'On all cores our responder has a thread for handshakes on each but one; on one core it is a single thread.',
      'strongSwan logs nothing. Where the kernel has no ESP it answers IKE_AUTH without a Child SA.',
    ],
    samples: { samples, memory, refusal },
  }
}

/**
 * Microseconds that the core which limits the rate is busy for a handshake: with the busiest thread, or with its share of
 * all of them. So the initiators, which need the same cores, do not count.
 */
function shareOf({ cpuMicroseconds: all, busiestMicroseconds: busiest }: Sample, subject: string): number {
  return subject.endsWith('all cores') ? Math.max(busiest, all / availableParallelism()) : all
}

type Of = (subject: string) => number

const handshakes = (subjects: readonly string[], cpu: Of, share: Of, wall: Of): Table => ({
  title: 'handshakes up to an established IKE SA (medians)',
  columns: ['responder', 'CPU us each', 'busiest core us', 'per s if alone', 'us each here'],
  rows: subjects.map((subject) => [
    subject,
    cpu(subject),
    share(subject),
    1e6 / share(subject),
    wall(subject),
  ]),
})

const refusals = (each: number): Table => ({
  title: 'IKE_SA_INIT under load, answered with a cookie',
  columns: ['', 'CPU us each', 'per s and core'],
  rows: [['ours, without sockets', each, 1e6 / each]],
})

const memories = ({ associations, heap, whole, charonResident }: Memory): Table => ({
  title: 'memory per established IKE SA',
  columns: ['responder', 'KiB', 'what'],
  rows: [
    ['ours', heap / KIB, `heap, ${associations} IKE SAs`],
    ['ours', whole / KIB, 'heap and array buffers'],
    ['strongSwan', charonResident / KIB, 'resident'],
  ],
})

const heapTarget = ({ associations, heap }: Memory): Target => ({
  what: `heap per IKE SA at ${associations}`,
  measured: heap / KIB,
  bound: 24,
  sense: 'most',
  unit: ' KiB',
})

/** @param ofClassic NaN when one of the two was not measured */
const resumptionNote = (ofClassic: number): readonly string[] =>
  Number.isNaN(ofClassic)
    ? []
    : [
        `A resumption takes the place of a handshake with ML-KEM, the default between our own nodes and clients. It is ${ofClassic.toFixed(2)} times as fast as a classic one, with which it has both exchanges in common; that one has only an X25519 and a signature besides, so 3 times would be out of reach for any code.`,
      ]
