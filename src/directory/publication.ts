/** Documents in every form they are served in, computed once and for everybody. */
import { promisify } from 'node:util'
import { brotliCompress, constants, gzip } from 'node:zlib'
import { toHex } from '#base/bytes'
import type { CryptoProvider } from '#crypto/provider'
import { bodyOf } from '#directory/consensus'
import type { Consensus } from '#directory/documents'

export type ContentCoding = 'br' | 'gzip' | 'identity'

export type Packed = Readonly<Record<ContentCoding, Uint8Array>>

export interface Publication {
  readonly consensus: Consensus
  /** What was signed. */
  readonly body: Uint8Array
  /** What it is called: `documentName`. */
  readonly name: string
  readonly packed: Packed
  readonly etag: string
}

export async function preparePublication(
  text: string,
  consensus: Consensus,
  crypto: CryptoProvider,
): Promise<Publication> {
  const identity = Buffer.from(text, 'latin1')
  const name = documentName(text, crypto)
  const body = identity.subarray(0, bodyOf(text).length)
  return { consensus, body, name, packed: await pack(identity), etag: documentTag(name) }
}

/** Slow enough to be worth keeping: about a quarter of a second for a thousand nodes, beside the event loop. */
export async function pack(identity: Uint8Array): Promise<Packed> {
  const [br, gz] = await Promise.all([
    compressBrotli(identity, {
      params: {
        [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT,
        [constants.BROTLI_PARAM_QUALITY]: identity.length < SMALL ? 11 : 9,
        [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
        [constants.BROTLI_PARAM_SIZE_HINT]: identity.length,
      },
    }),
    compressGzip(identity),
  ])
  return { br, gzip: gz, identity }
}

/**
 * SHA-256 of the body, in hex. Servers may have collected signatures of different authorities, and yet it is one
 * document; and no server can give its own name to the one it hands out, to know the reader again by it.
 */
export const documentName = (text: string, crypto: CryptoProvider): string =>
  toHex(crypto.hash('sha256', Buffer.from(bodyOf(text), 'latin1')))

/** Weak, because it names the document in every coding and with any signatures (RFC 9110 section 8.8.1). */
export const documentTag = (name: string): string => `W/"${name}"`

/** The best of what the client takes (RFC 9110 section 12.5.3); only q=0 matters among weights. */
export function chooseCoding(acceptEncoding: string | undefined): ContentCoding {
  const accepted = new Set<string>()
  for (const item of (acceptEncoding ?? '').toLowerCase().split(',')) {
    const [coding, weight] = item.split(';').map((part) => part.trim())
    if (coding !== undefined && !/^q=0(\.0*)?$/.test(weight ?? '')) accepted.add(coding)
  }
  return accepted.has('br') ? 'br' : accepted.has('gzip') ? 'gzip' : 'identity'
}

/** If-None-Match: a list of tags, compared weakly, or `*` (RFC 9110 section 13.1.2). */
export function tagMatches(ifNoneMatch: string | undefined, etag: string): boolean {
  const opaque = etag.replace(/^W\//, '')
  return (ifNoneMatch ?? '').split(',').some((item) => {
    const tag = item.trim()
    return tag === '*' || tag.replace(/^W\//, '') === opaque
  })
}

/** Octets up to which the best compression is a matter of milliseconds. */
const SMALL = 64 * 1024

const compressBrotli = promisify(brotliCompress)
const compressGzip = promisify(gzip)
