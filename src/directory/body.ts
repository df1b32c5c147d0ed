/** The body of an answer, no more of it than is wanted. */

/** Undefined, and the connection given up, as soon as it is more than `limit` octets. */
export async function readBounded(body: AsyncIterable<Buffer>, limit: number): Promise<Buffer | undefined> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of body) {
    length += part.length
    if (length > limit) return undefined
    parts.push(part)
  }
  return Buffer.concat(parts, length)
}
