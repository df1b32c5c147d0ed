import type { Command } from 'commander'
import { KEYS } from '#cli/circuits'
import { print, printJson } from '#cli/output'
import { controlRequest } from '#linux/control'

interface Options {
  readonly socket: string
  readonly json?: boolean
  readonly ike?: true
}

interface RekeyReport {
  readonly peer: string
  readonly what: keyof typeof KEYS
  readonly ms: number
}

/** `ippriv overlay rekey`: the tunnels of a running node to other nodes. */
export function registerOverlay(program: Command): void {
  program
    .command('overlay')
    .description('the tunnels of a running node to other nodes')
    .command('rekey')
    .description('new keys for the tunnel to a peer, now, and wait until they are in use')
    .argument('<peer>', 'name or node id, as `ippriv status` shows it')
    .requiredOption('-s, --socket <path>', 'control socket of the node')
    .option('--ike', 'the keys of IKE, not those of the packets')
    .option('--json', 'print JSON')
    .action(async (peer: string, { socket, json, ike }: Options) => {
      const params = { peer, ...(ike ? { ike } : {}) }
      const report = (await controlRequest(socket, 'overlay.rekey', params)) as RekeyReport
      if (json) printJson(report)
      else print(`${report.peer}: new keys of ${KEYS[report.what]}, took ${report.ms} ms`)
    })
}
