/** Boots one User-Mode Linux guest, runs guest tests in it, and reports each by its name as soon as it ends. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { runInUml } from '#linux/uml'
import type { GuestResult } from './guest.ts'

/** Twice what the longest takes on a quiet machine. Below that of a file (`../run.ts`). */
export const TIME_LIMIT = 1_200_000

/** @param names of `NAME.guest.ts` */
export async function runGuestTests(t: TestContext, ...names: readonly string[]): Promise<void> {
  const told: Promise<void>[] = []
  const decoder = new TextDecoder()
  let rest = ''
  const { exitCode, stderr } = await runInUml({
    command: [process.execPath, join(import.meta.dirname, 'guest.ts'), ...names],
    cwd: join(import.meta.dirname, '../..'),
    timeoutMs: TIME_LIMIT,
    onStdout: (chunk) => {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
      rest = lines.pop()!
      for (const line of lines) if (line.startsWith('{')) told.push(tell(t, JSON.parse(line)))
    },
  })
  await Promise.all(told)
  assert.ok(told.length > 0, stderr)
  assert.equal(exitCode, 0, stderr)
}

async function tell(t: TestContext, result: GuestResult): Promise<void> {
  const { file, name, skipped, passed, failure, said, milliseconds } = result
  await t.test(`${file}: ${name}`, (guest) => {
    guest.diagnostic(`${milliseconds} ms in the guest`)
    for (const line of said) guest.diagnostic(line)
    if (skipped) guest.skip('skipped in the guest')
    else if (!passed) assert.fail(failure)
  })
}
