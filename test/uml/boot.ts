/** Boots one User-Mode Linux guest, runs guest tests in it, and reports each by its name. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { runInUml } from '#linux/uml'
import type { GuestResult } from './guest.ts'

export const TIME_LIMIT = 780_000

/** @param names of `NAME.guest.ts` */
export async function runGuestTests(t: TestContext, ...names: readonly string[]): Promise<void> {
  const { exitCode, stdout, stderr } = await runInUml({
    command: [process.execPath, join(import.meta.dirname, 'guest.ts'), ...names],
    cwd: join(import.meta.dirname, '../..'),
    timeoutMs: TIME_LIMIT,
  })
  const results = stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as GuestResult)
  for (const { file, name, skipped, passed, failure, said, milliseconds } of results) {
    await t.test(`${file}: ${name}`, (guest) => {
      guest.diagnostic(`${milliseconds} ms in the guest`)
      for (const line of said) guest.diagnostic(line)
      if (skipped) guest.skip('skipped in the guest')
      else if (!passed) assert.fail(failure)
    })
  }
  assert.ok(results.length > 0, stderr)
  assert.equal(exitCode, 0, stderr)
}
