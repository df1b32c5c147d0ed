/** One published document in every form it is served in, computed once. */
import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { brotliCompress, constants, gzip } from 'node:zlib'
import type { Consensus } from '#directory/documents'

export type ContentCoding = 'br' | 'gzip' | 'identity'

export interface Publication {
  readonly consensus: Consensus
  readonly bodies: Readonly<Record<ContentCoding, Buffer>>
  readonly etag: string
}

export async function preparePublication(text: string, consensus: Consensus): Promise<Publication> {
  const identity = Buffer.from(text, 'latin1')
  const [br, gz] = await Promise.all([
    compressBrotli(identity, {
      params: {
        [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT,
        [constants.BROTLI_PARAM_QUALITY]: 9,
        [constants.BROTLI_PARAM_SIZE_HINT]: identity.length,
      },
    }),
    compressGzip(identity),
  ])
  return { consensus, bodies: { br, gzip: gz, identity }, etag: documentTag(identity) }
}

/**
 * The entity tag of a document is a function of its bytes, so that a client can compute it and send that one: a
 * tag that the server may choose freely is a cookie. Weak, because it names the document in every coding
 * (RFC 9110 section 8.8.1).
 */
export const documentTag = (document: Uint8Array): string =>
  `W/"${createHash('sha256').update(document).digest('hex')}"`

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

const compressBrotli = promisify(brotliCompress)
const compressGzip = promisify(gzip)
