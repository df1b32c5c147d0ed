import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'

/** Processor seconds of the whole machine while `action` runs, interrupts included. */
export async function busyDuring(action: () => Promise<unknown>): Promise<number> {
  const before = await busySeconds()
  await action()
  return (await busySeconds()) - before
}

/**
 * Processor seconds per second that the machine uses by itself: the least of five, for what was just started is not
 * at rest yet.
 */
export async function idleLoad(): Promise<number> {
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < 5; i++) least = Math.min(least, await busyDuring(() => sleep(1000)))
  return least
}

/** Processor seconds of the whole machine since its start. proc(5), /proc/stat: user, nice, system, idle, iowait, irq, softirq in ticks of 10 ms. */
export async function busySeconds(): Promise<number> {
  const [user, nice, system, , , irq, softirq] = (await readFile('/proc/stat', 'utf8'))
    .split('\n')[0]!
    .split(/\s+/)
    .slice(1)
    .map(Number)
  return (user! + nice! + system! + irq! + softirq!) / 100
}
