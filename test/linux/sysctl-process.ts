/** Runs `SysctlKeeper` in a namespace: `open`, `set` the node's values, then wait to be killed or told to close. */
import { once } from 'node:events'
import { nodeSysctls, SysctlKeeper } from '#linux/sysctl'

const [stateDir, device] = process.argv.slice(2) as [string, string]
const keeper = new SysctlKeeper(stateDir)
await keeper.open()
process.stdout.write('opened\n')
await once(process.stdin, 'data')
await keeper.set(nodeSysctls(device))
await keeper.set(nodeSysctls(device))
process.stdout.write('set\n')
await once(process.stdin, 'data')
await keeper.close()
await keeper.close()
process.stdin.destroy()
