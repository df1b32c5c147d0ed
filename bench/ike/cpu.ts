import { readdirSync, readFileSync } from 'node:fs'

/** Nanoseconds of CPU that each thread of a process took so far, by its id. */
export function cpuOf(pid: number): ReadonlyMap<string, number> {
  const times = new Map<string, number>()
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      const [running] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')
      times.set(thread, Number(running))
    } catch (error) {
      // It ended between the two look-ups.
      if (
        (error as NodeJS.ErrnoException).code !== 'ENOENT' &&
        (error as NodeJS.ErrnoException).code !== 'ESRCH'
      )
        throw error
    }
  }
  return times
}

/** Nanoseconds since `before`: of all threads, and of the one that took most. Threads that ended count no more. */
export function cpuSince(pid: number, before: ReadonlyMap<string, number>): { all: number; busiest: number } {
  const spent = [...cpuOf(pid)].map(([thread, time]) => time - (before.get(thread) ?? 0))
  return { all: spent.reduce((sum, time) => sum + time, 0), busiest: Math.max(...spent) }
}

/** Resident octets. */
export function residentOf(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kib) * 1024
}
