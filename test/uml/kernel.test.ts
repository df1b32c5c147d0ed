/** The guest tests of the kernel plane, and the guest itself. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runInUml, umlProblem } from '#linux/uml'
import { runGuestTests, TIME_LIMIT } from './boot.ts'

const problem = await umlProblem()

test('in a guest with a real kernel', { skip: problem ?? false, timeout: TIME_LIMIT + 20_000 }, (t) =>
  runGuestTests(t, 'mixed', 'xfrm'),
)

test('a guest hands back exit code and both streams apart, and writes only where it may', {
  skip: problem ?? false,
  timeout: 60_000,
}, async () => {
  const live: string[] = []
  const result = await runInUml({
    command: ['sh', '-c', 'printf "a\\r\\nb"; echo e >&2; echo "$IT"; pwd; echo x >forbidden; exit 3'],
    env: { IT: "it's" },
    cwd: import.meta.dirname,
    timeoutMs: 40_000,
    onStdout: (chunk) => live.push(Buffer.from(chunk).toString()),
  })
  assert.equal(result.exitCode, 3)
  assert.equal(result.stdout, `a\r\nbit's\n${import.meta.dirname}\n`)
  assert.equal(live.join(''), result.stdout)
  assert.match(result.stderr, /^e\n.*Read-only file system\n$/)
})

test('a guest that does not end is ended', { skip: problem ?? false, timeout: 60_000 }, async () => {
  const started = performance.now()
  await assert.rejects(runInUml({ command: ['sleep', '1000'], timeoutMs: 6000 }), { code: 'IPP_HOST_TOOL' })
  assert.ok(performance.now() - started < 20_000)
})
