/**
 * What else a host may have to do: stress-ng(1), with the loads of the paper's Figure 11 and as many processes of each.
 * It ends by itself after `seconds`, whoever forgets it.
 */

export const LOADS = ['none', 'cpu', 'io', 'memory', 'disk'] as const
export type Load = (typeof LOADS)[number]

/** Of each kind, as in the paper. */
const PROCESSES = 20

/** The command line of a load; undefined of `none`. `folder` is written to. */
export function loadCommand(load: Load, folder: string, seconds: number): string[] | undefined {
  const workers = WORKERS[load]
  if (workers === undefined) return undefined
  // Without its adjustment of the out-of-memory killer, which needs more rights than a guest may have.
  const frame = ['--quiet', '--oomable', '--timeout', `${Math.ceil(seconds)}s`, '--temp-path', folder]
  return ['stress-ng', ...workers, ...frame]
}

/** @throws Error for a word that names no load */
export function readLoads(text: string): Load[] {
  const words = text.split(',')
  const unknown = words.find((word) => !(LOADS as readonly string[]).includes(word))
  if (unknown !== undefined) throw new Error(`--loads: ${unknown} is none of ${LOADS.join(', ')}`)
  // What is lost is lost of something.
  return LOADS.filter((load) => load === 'none' || words.includes(load))
}

/** Sizes are what fits beside other work: nothing is swapped and no disk is filled. */
const WORKERS: Readonly<Record<Load, readonly string[] | undefined>> = {
  none: undefined,
  cpu: ['--cpu', `${PROCESSES}`],
  io: ['--io', `${PROCESSES}`],
  memory: ['--vm', `${PROCESSES}`, '--vm-bytes', '16m'],
  disk: ['--hdd', `${PROCESSES}`, '--hdd-bytes', '16m'],
}
