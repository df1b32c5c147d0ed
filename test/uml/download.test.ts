/** The guest tests of what a download survives. */
import { test } from 'node:test'
import { umlProblem } from '#linux/uml'
import { runGuestTests, TIME_LIMIT } from './boot.ts'

test(
  'downloads in a guest with a real kernel',
  {
    skip: (await umlProblem()) ?? false,
    timeout: TIME_LIMIT + 20_000,
  },
  (t) => runGuestTests(t, 'download'),
)
