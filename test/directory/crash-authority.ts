/** An authority on its own, for the test that kills it: `node crash-authority.ts WHO PORTS FOLDER EPOCH`. Says when it is up. */
import { startHasty } from './hasty.ts'

const [who, ports, folder, epoch] = process.argv.slice(2)
if (who === undefined || ports === undefined || folder === undefined || epoch === undefined)
  throw new Error('usage: crash-authority.ts WHO PORTS FOLDER EPOCH')
await startHasty(Number(who), ports.split(',').map(Number), folder, Number(epoch))
process.stdout.write('up\n')
