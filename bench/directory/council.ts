/** A period of some authorities, each in its own process, one at a time so that nobody's time is another's. */
import { type ChildProcess, fork } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { toHex } from '#base/bytes'
import type { NetworkFile, Turn, TurnDone } from './authority.ts'
import { LivingNetwork } from './network.ts'

const TURNS: readonly Turn[] = [
  'vote',
  'hear-votes',
  'roll',
  'hear-rolls',
  'count',
  'hear-signatures',
  'publish',
]

export interface CouncilSample extends TurnDone {
  readonly authority: number
}

export async function sitCouncil(
  nodes: number,
  authorities: number,
  threshold: number,
  folder: string,
  signal: AbortSignal,
): Promise<CouncilSample[]> {
  const living = new LivingNetwork(nodes, authorities, threshold)
  const network: NetworkFile = {
    folder,
    threshold,
    keys: living.authorities.map(({ publicKey, privateKey }) => ({
      publicKey: toHex(publicKey),
      privateKey: toHex(privateKey),
    })),
    nodes: living.nodes.map(({ text }) => text),
  }
  const file = join(folder, 'network.json')
  await writeFile(file, JSON.stringify(network))
  const samples: CouncilSample[] = []
  const children: ChildProcess[] = []
  try {
    for (const authority of living.authorities.keys()) {
      const child = fork(join(import.meta.dirname, 'authority.ts'), [file, String(authority)], {
        execArgv: ['--disable-warning=ExperimentalWarning'],
        signal,
      })
      children.push(child)
      await messageOf(child)
    }
    for (const turn of TURNS)
      for (const [authority, child] of children.entries()) {
        child.send(turn)
        samples.push({ ...((await messageOf(child)) as TurnDone), authority })
      }
    return samples
  } finally {
    for (const child of children) child.kill('SIGKILL')
  }
}

function messageOf(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null) => reject(new Error(`an authority ended with ${code}`))
    child.once('exit', ended)
    child.once('message', (message) => {
      child.off('exit', ended)
      resolve(message)
    })
  })
}
