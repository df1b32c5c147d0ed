/**
 * A copy of a plain value whose octets lie in one buffer of their own: to be handed to another thread, which then has
 * them alone. One, because every buffer that changes hands costs as much as the octets of a whole handshake.
 */
export function move<T>(value: T): { readonly value: T; readonly buffer: ArrayBuffer } {
  const buffer = new ArrayBuffer(octetsIn(value))
  let at = 0
  const copy = (part: unknown): unknown => {
    if (part instanceof Uint8Array) {
      const octets = new Uint8Array(buffer, at, part.length)
      at += part.length
      octets.set(part)
      return octets
    }
    if (!isTree(part)) return part
    return Object.fromEntries(Object.entries(part).map(([name, inner]) => [name, copy(inner)]))
  }
  return { value: copy(value) as T, buffer }
}

function octetsIn(part: unknown): number {
  if (part instanceof Uint8Array) return part.length
  return isTree(part) ? Object.values(part).reduce((sum: number, inner) => sum + octetsIn(inner), 0) : 0
}

const isTree = (part: unknown): part is object =>
  typeof part === 'object' && part !== null && !(part instanceof Set)
