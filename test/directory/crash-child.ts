/** A directory on its own, for the test that kills it: `node crash-child.ts STATE_DIR`. Prints its port. */
import { startDirectory } from '#directory/daemon'
import { AUTHORITY, crypto, ManualClock, PLAN, SILENT } from './network.ts'

const stateDir = process.argv[2]
if (stateDir === undefined) throw new Error('usage: crash-child.ts STATE_DIR')

// The calendar stands still, so that the descriptors of the test stay acceptable; the other clock runs.
const calendar = new ManualClock()
const directory = await startDirectory({
  listen: { address: '127.0.0.1', port: 0 },
  key: AUTHORITY,
  stateDir,
  plan: PLAN,
  period: 3600,
  crypto,
  log: SILENT,
  clock: { unixTime: () => calendar.unixTime(), monotonic: () => performance.now() as never },
  // The test speaks for all nodes.
  uploads: 'anywhere',
  limits: { uploads: { burst: 10_000, perSecond: 1 }, reads: { burst: 10_000, perSecond: 1 } },
})
process.stdout.write(`${directory.port}\n`)
