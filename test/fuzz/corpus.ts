/** Inputs that once reached new code, or broke something, one small file each: corpus/<target>/<hash>. */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const CORPUS = fileURLToPath(new URL('./corpus', import.meta.url))
/** Larger ones are not worth a place in a repository. */
const MAX_SAVED = 1024

export function readCorpus(target: string): Uint8Array[] {
  const folder = join(CORPUS, target)
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .sort()
    .map((name) => Uint8Array.from(readFileSync(join(folder, name))))
}

/** @returns the path; undefined: too large, and `always` is not set. */
export function save(target: string, input: Uint8Array, always = false): string | undefined {
  if (input.length > MAX_SAVED && !always) return undefined
  const folder = join(CORPUS, target)
  mkdirSync(folder, { recursive: true })
  const path = join(folder, createHash('sha256').update(input).digest('hex').slice(0, 12))
  writeFileSync(path, input)
  return path
}
