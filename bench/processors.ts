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

/**
 * Processor seconds of the whole machine, interrupts included, since some instant: all there were, but those of which
 * proc(5), /proc/stat says that nobody had them: idle, iowait, steal, in ticks of 10 ms. That of users, system and so
 * on is sampled by the timer on many kernels, which never meets a program that wakes by timers and is done before the
 * next one, as tor's scheduler is; a third of its time was all that showed.
 */
export async function busySeconds(): Promise<number> {
  const now = performance.now() / 1000
  const lines = (await readFile('/proc/stat', 'utf8')).split('\n')
  const [, , , idle, iowait, , , steal] = lines[0]!.split(/\s+/).slice(1).map(Number)
  const processors = lines.filter((line) => /^cpu\d/.test(line)).length
  return processors * now - (idle! + iowait! + steal!) / 100
}
