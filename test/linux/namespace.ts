import { execFileSync } from 'node:child_process'
import koffi from 'koffi'

const CLONE_NEWNET = 0x4000_0000

/**
 * Moves the main thread of this process, and every process it starts from now on, into a network namespace of
 * its own, which ends with the process. Call it before any socket is opened.
 * @returns why that is not possible; undefined when it is done.
 */
export function enterFreshNamespace(): string | undefined {
  const unshare = koffi.load('libc.so.6').func('int unshare(int)')
  if (unshare(CLONE_NEWNET) !== 0) return 'a network namespace of its own needs root (CAP_SYS_ADMIN)'
  execFileSync('ip', ['link', 'set', 'lo', 'up'])
  return undefined
}

/** Runs `ip` in the namespace of this process; its output without the last line end. */
export const ipCommand = (...args: readonly string[]): string =>
  execFileSync('ip', args, { encoding: 'utf8' }).trimEnd()
