/** The fuzzer, for some seconds, and whether it could find anything. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Coverage } from './coverage.ts'
import { loop, type Outcome, type Target } from './loop.ts'

const RUN = fileURLToPath(new URL('./run.ts', import.meta.url))
const fuzz = (...args: string[]): { readonly status: number | null; readonly text: string } => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [RUN, ...args], { encoding: 'utf8' })
  return { status, text: stdout + stderr }
}

test('everything in the corpus, and some seconds of new inputs: nothing is found', () => {
  const { status, text } = fuzz('--seconds', '6', '--seed', '1', '--no-save')
  assert.equal(status, 0, text)
  for (const target of ['header', 'payloads', 'body', 'exchange'])
    assert.match(text, new RegExp(`^${target}: \\d{2,} inputs, .* 0 finds$`, 'm'))
})

test('wrong usage: exit code 2, and --help says how', () => {
  assert.equal(fuzz('--seconds', 'many').status, 2)
  assert.equal(fuzz('--seconds', '1', '--target', 'tcp').status, 2)
  assert.equal(fuzz().status, 2)
  const { status, text } = fuzz('--help')
  assert.equal(status, 0)
  assert.match(text, /--target/)
})

const target = (run: Target['run'], settle: Target['settle'] = () => {}): Target => ({
  name: 'test',
  seeds: () => [Uint8Array.of(1, 2, 3, 4, 5, 6)],
  run,
  settle,
})

const LIMIT = 60_000

/** Before the maze is compiled: then its blocks are counted. */
const coverage = new Coverage(/\/test\/fuzz\/maze\.ts$/)
const { maze } = await import('./maze.ts')

function search(of: Target, guided: boolean): Outcome {
  const more = ({ inputs }: { readonly inputs: number }): boolean => inputs < LIMIT
  return loop({ target: of, coverage, corpus: [], seed: 3, guided, more })
}

test('four octets in a row are found by guidance, and not without it', () => {
  const forget = coverage.mark()
  const blind = search(target(maze), false)
  assert.deepEqual(blind.finds, [])
  forget()
  const guided = search(target(maze), true)
  assert.match(guided.finds[0]?.detail ?? '', /the middle of the maze/)
  assert.ok(guided.fresh.length >= 2)
})

test('state that stays, an input that takes long and memory that grows are found, with the input that did it', () => {
  let left = 0
  const leaky = target(
    (input) => {
      if (input[0] === 0) left++
    },
    () => {
      const was = left
      left = 0
      assert.equal(was, 0, 'something is left')
    },
  )
  const [leak] = search(leaky, true).finds
  assert.equal(leak?.kind, 'leak')
  assert.equal(leak.input[0], 0)

  const memory: Uint8Array[] = []
  const growing = target(() => memory.push(new Uint8Array(1000).fill(1)))
  assert.equal(search(growing, false).finds[0]?.kind, 'memory')
})
