import { readFile } from 'node:fs/promises'

/** Processor seconds of the whole machine while `action` runs, interrupts included. */
export async function busyDuring(action: () => Promise<unknown>): Promise<number> {
  const before = await busy()
  await action()
  return (await busy()) - before
}

/** proc(5), /proc/stat: user, nice, system, idle, iowait, irq, softirq in ticks of 10 ms. */
async function busy(): Promise<number> {
  const [user, nice, system, , , irq, softirq] = (await readFile('/proc/stat', 'utf8'))
    .split('\n')[0]!
    .split(/\s+/)
    .slice(1)
    .map(Number)
  return (user! + nice! + system! + irq! + softirq!) / 100
}
