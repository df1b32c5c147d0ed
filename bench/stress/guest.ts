/**
 * Inside User-Mode Linux, one JSON line on standard output per sample: a download over the daemons' circuit of three
 * hops in the kernel plane, while the guest has other work. Its one processor is that of every host, so what shall be
 * other machines (both ends of the download) has the highest priority, and the load the usual one. Forwarding has none:
 * it is the kernel's.
 */
import { mkdtemp } from 'node:fs/promises'
import { setPriority, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Commands, until } from '#demo/command'
import { inNamespace } from '#demo/topology'
import { bulk } from '../bulk.ts'
import { raiseNetwork } from '../network.ts'
import type { StressSample } from '../stress.ts'
import { type Load, loadCommand } from './load.ts'
import { reniceNamespace } from './processors.ts'

const FIRST = -20
const HOPS = 3

const [rounds, loads, seconds] = JSON.parse(process.argv[2] ?? '[1,["none","cpu"],2]') as [
  number,
  Load[],
  number,
]
const commands = new Commands(new AbortController().signal)
const out = await mkdtemp(join(tmpdir(), 'ippriv-stress-'))
try {
  const { client, server, path } = await raiseNetwork(commands, {
    id: `ippd${process.pid}`,
    out,
    hops: HOPS,
    plane: 'xfrm',
    nodes: HOPS,
    patience: 400_000,
  })
  await reniceNamespace(commands, server.namespace, FIRST)
  // The other end of the transfer inherits it.
  setPriority(FIRST)
  const middle = path[2]!.host
  for (let round = 1; round <= rounds; round++)
    for (const load of loads) {
      const command = loadCommand(load, out, 60 + seconds)
      const stress =
        command === undefined
          ? undefined
          : commands.start(
              inNamespace(middle.namespace, 'nice', '-n', `${-FIRST}`, ...command),
              join(out, 'stress.log'),
            )
      // Between two transfers the server is not there for a moment, which is long in here.
      const { mbps } = await until('a download', 60_000, () =>
        bulk(commands, client, server, { seconds, streams: 1, direction: 'down' }),
      )
      if (stress?.running === false) throw new Error('there was no load')
      await stress?.stop(5000)
      const sample: StressSample = { system: 'kernel plane', standing: 'equal', load, round, mbps }
      process.stdout.write(`${JSON.stringify(sample)}\n`)
    }
} finally {
  await commands.killAll(5_000)
}
process.exit()
