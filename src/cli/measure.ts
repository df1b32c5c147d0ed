import { rename, writeFile } from 'node:fs/promises'
import { type Command, InvalidArgumentError } from 'commander'
import { toHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { columns, print, printJson, progress } from '#cli/output'
import { controlRequest } from '#linux/control'

interface MeasureOptions {
  readonly socket: string
  readonly key: string
  readonly url: string
  readonly out: string
  readonly seconds: number
  readonly connections: number
  readonly json?: boolean
}

/** `ippriv measure`: how fast every node is, as a signed report for the authority that pins our key. */
export function registerMeasure(program: Command): void {
  program
    .command('measure')
    .description('measure every node through circuits of a client with circuit.onDemand, and sign a report')
    .requiredOption('-s, --socket <path>', 'control socket of that client')
    .requiredOption('--key <file>', 'measurer.pem; ippriv keygen measurer makes one')
    .requiredOption('--url <url>', 'http://ADDRESS:PORT/file, something big on the measuring server')
    .requiredOption('--out <file>', 'where the report goes: measurer.report of the authority')
    .option('--seconds <n>', 'how long each download takes', positive, 5)
    .option('--connections <n>', 'at once', positive, 4)
    .option('--json', 'print JSON')
    .action(async ({ socket, key, url, out, seconds, connections, json }: MeasureOptions) => {
      const { clientTrack, measureNode, signReport } = await import('#daemon/measurer')
      const { nodeCrypto } = await import('#crypto/node')
      const { readKeyFile } = await import('#config/keys')
      const measurer = await readKeyFile(key)
      const { nodes } = (await controlRequest(socket, 'nodes.list')) as {
        nodes: Parameters<typeof measureNode>[1]
      }
      const track = clientTrack(socket, { url, seconds, connections })
      const rng = { bytes: (length: number) => nodeCrypto.random(length) }
      const figures = new Map<(typeof nodes)[number]['nodeId'], number>()
      for (const node of nodes) {
        if (!json) progress(`measuring ${node.name}`)
        figures.set(node.nodeId, await measureNode(node, nodes, track, rng))
      }
      // Or a server that is down would be reported as a network that is.
      if (nodes.length > 0 && [...figures.values()].every((figure) => figure === 0))
        throw new IpprivError('IPP_CONFIG_INVALID', `--url: nothing came from ${url} through any node`)
      const text = signReport(figures, measurer)
      // The authority must not read half a report.
      await writeFile(`${out}.new`, text)
      await rename(`${out}.new`, out)
      const rows = nodes.map(({ name, nodeId }) => ({ node: name, kilobits: figures.get(nodeId)! }))
      if (json) printJson({ measurer: toHex(measurer.publicKey), figures: rows })
      else
        print(
          ...columns(
            rows.map(({ node, kilobits }) => [node, `${kilobits}`]),
            ['node', 'kbit/s'],
          ),
        )
    })
}

function positive(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a positive integer')
  return value
}
