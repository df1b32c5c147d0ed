import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** One message exchanged with a real kernel (`test/vectors/README.md`). */
export interface XfrmVector {
  readonly kernel: string
  readonly dir: 'request' | 'reply' | 'event'
  readonly type_name: string
  readonly what: string
  readonly hex: string
}

const FILE = join(import.meta.dirname, '../vectors/xfrm-messages.json')

export const xfrmVectors = (): readonly XfrmVector[] =>
  (JSON.parse(readFileSync(FILE, 'utf8')) as { messages: XfrmVector[] }).messages

/** The vector with exactly this description. */
export function xfrmVector(what: string): XfrmVector {
  const found = xfrmVectors().find((vector) => vector.what === what)
  if (!found) throw new Error(`no vector ${what}`)
  return found
}
