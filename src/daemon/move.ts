/**
 * A copy of a plain value whose octets lie in buffers of their own, and these: to be handed to another thread, which then
 * has them alone.
 */
export function move<T>(value: T): { readonly value: T; readonly buffers: ArrayBuffer[] } {
  const buffers: ArrayBuffer[] = []
  const copy = (part: unknown): unknown => {
    if (part instanceof Uint8Array) {
      const octets = new Uint8Array(part)
      buffers.push(octets.buffer)
      return octets
    }
    if (typeof part !== 'object' || part === null || part instanceof Set) return part
    return Object.fromEntries(Object.entries(part).map(([name, inner]) => [name, copy(inner)]))
  }
  return { value: copy(value) as T, buffers }
}
