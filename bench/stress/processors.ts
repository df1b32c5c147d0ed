/** Whose processor is whose: hosts are namespaces, so only the scheduler can tell them apart. */
import { readdirSync } from 'node:fs'
import { availableParallelism, setPriority } from 'node:os'
import type { Commands } from '#demo/command'

export interface Division {
  /** Of the host that is under load. */
  readonly loaded: number
  /** Of all others, as taskset(1) takes it. */
  readonly others: string
}

/** The last processor for one host, all others for the others. @throws Error on a machine with one */
export function divide(processors: number): Division {
  if (processors < 2) throw new Error('one host shall have a processor of its own: this machine has but one')
  const last = processors - 1
  return { loaded: last, others: last === 1 ? '0' : `0-${last - 1}` }
}

export const divideThisMachine = (): Division => divide(availableParallelism())

/** Everything that runs in a namespace, with its threads and what they start from now on. */
export async function pinNamespace(commands: Commands, namespace: string, list: string): Promise<void> {
  for (const pid of await processesIn(commands, namespace))
    await commands.run(['taskset', '--all-tasks', '--cpu-list', '--pid', list, `${pid}`], { check: false })
}

/** The nice value of every thread in a namespace, -20 to 19; threads started later have that of who starts them. */
export async function reniceNamespace(commands: Commands, namespace: string, nice: number): Promise<void> {
  for (const pid of await processesIn(commands, namespace))
    for (const thread of readdirSync(`/proc/${pid}/task`)) setPriority(Number(thread), nice)
}

export async function processesIn(commands: Commands, namespace: string): Promise<number[]> {
  const { stdout } = await commands.run(['ip', 'netns', 'pids', namespace])
  return stdout.split('\n').filter(Boolean).map(Number)
}
