import { createCipheriv, createHash } from 'node:crypto'

/**
 * The file of the demo's web server: as many octets as asked for, looking random, the same in every run, and
 * made on the fly. It is the AES-256-CTR key stream of an all-zero key, so both ends can compute its SHA-256.
 */
export function* content(length: number): Generator<Buffer> {
  const cipher = createCipheriv('aes-256-ctr', Buffer.alloc(32), Buffer.alloc(16))
  for (let left = length; left > 0; left -= CHUNK)
    yield cipher.update(ZEROS.subarray(0, Math.min(left, CHUNK)))
}

/** SHA-256 of `content(length)`, as hex. */
export function contentDigest(length: number): string {
  const hash = createHash('sha256')
  for (const chunk of content(length)) hash.update(chunk)
  return hash.digest('hex')
}

export const MEBIBYTE = 1024 * 1024

/** What the front page says: a fetch is right when this is in it. */
export const PAGE_MARK = 'This page came through a telescope.'

/** Names the demo's DNS server knows. `WHOAMI_NAME` answers a TXT record with the address of the asker. */
export const WEB_NAME = 'www.example.test'
export const WHOAMI_NAME = 'whoami.example.test'

export const HTTP_PORT = 80
export const DNS_PORT = 53
export const ECHO_PORT = 7007

const CHUNK = 256 * 1024
const ZEROS = Buffer.alloc(CHUNK)
