/**
 * npm run fuzz -- --seconds N: random octets, guided by what they reach, against header, payloads, decrypted bodies
 * and whole conversations. Inputs that reached new code go into corpus/, inputs that broke something as well.
 *
 * Exit code 0: nothing was found; 1: something was, and a line says how to run it again; 2: usage.
 */
import { readFileSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { Command, InvalidArgumentError, Option } from 'commander'
import { save } from './corpus.ts'
import type { Find, Outcome, Progress } from './loop.ts'
import type { WorkerInput } from './worker.ts'

const NAMES = ['header', 'payloads', 'body', 'exchange']
/** For one input; whatever takes longer never ends. */
const HANG = 60_000
const MAX_INPUT = 1 << 17

const natural = (text: string): number => {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('not a number')
  return Number(text)
}

const program = new Command('fuzz')
  .description('Fuzzes the IKEv2 engine, guided by coverage.')
  .requiredOption('--seconds <n>', 'how long, for all targets together', natural)
  .option('--seed <n>', 'of the random changes; default: another one each time', natural)
  .addOption(new Option('--target <name>', 'what is fuzzed').choices([...NAMES, 'all']).default('all'))
  .option('--blind', 'build upon nothing that is found: what guidance is worth', false)
  .option('--no-save', 'leave the corpus as it is')
  .option('--replay <file>', 'run this input of --target once, and no other')
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
const options = program.opts<{
  seconds: number
  seed?: number
  target: string
  blind: boolean
  save: boolean
  replay?: string
}>()

type Message =
  | ({ readonly kind: 'progress'; readonly target: string; readonly seconds: number } & Progress)
  | ({ readonly kind: 'outcome'; readonly target: string } & Outcome)

const seed = options.seed ?? Math.floor(Math.random() * 1e9)
const present = new SharedArrayBuffer(8 + MAX_INPUT)
const workerData: WorkerInput = {
  targets: options.target === 'all' ? NAMES : [options.target],
  seconds: options.seconds,
  seed,
  guided: !options.blind,
  present,
  ...(options.replay === undefined ? {} : { replay: Uint8Array.from(readFileSync(options.replay)) }),
}
console.log(`fuzz: seed ${seed}, ${options.seconds} s for ${workerData.targets.join(', ')}`)

let finds = 0
let current = workerData.targets[0]!
let moved = { at: performance.now(), count: 0 }
const worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData })
const watchdog = setInterval(() => {
  const [length, count] = new Int32Array(present, 0, 2)
  const now = performance.now()
  if (count !== moved.count) moved = { at: now, count: count! }
  if (now - moved.at < HANG) return
  report({
    kind: 'slow',
    target: current,
    detail: `does not end within ${HANG / 1000} s`,
    input: new Uint8Array(present, 8, length).slice(),
  })
  finish(1)
}, 1000)
worker.on('message', (message: Message) => {
  const { target, inputs, known, covered } = message
  current = target
  if (message.kind === 'progress') {
    const rate = (inputs / message.seconds).toFixed(0)
    console.log(
      `${target}: ${message.seconds.toFixed(0)} s, ${inputs} inputs (${rate}/s), ${known} known, ${covered} characters of source covered`,
    )
    return
  }
  const saved = options.save ? message.fresh.filter((input) => save(target, input) !== undefined).length : 0
  console.log(
    `${target}: ${inputs} inputs, ${message.fresh.length} reached new code (${saved} saved), ${covered} characters of source covered, ${message.finds.length} finds`,
  )
  for (const find of message.finds) report(find)
})
worker.on('error', (error) => {
  console.error(error)
  finish(1)
})
worker.on('exit', () => finish(finds > 0 ? 1 : 0))

function report({ kind, target, detail, input }: Find): void {
  finds++
  const path = save(target, input, true)
  console.log(`FOUND ${kind} in ${target}: ${detail}`)
  console.log(`  again: npm run fuzz -- --seconds 1 --target ${target} --replay ${path}`)
}

function finish(code: number): never {
  clearInterval(watchdog)
  process.exit(code)
}
