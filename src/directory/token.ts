/**
 * A token of a directory's operator, which frees the uploads of a node from work. Transport is not secret, so the token
 * itself never travels: what does is bound to one document, and of no use with another.
 *
 *     token  = 32 octets; the node's
 *     key    = SHA-256( "ippriv token 1" LF | token ); the directory's, a line of its file of tokens
 *     ippriv-token: <first 16 hex digits of SHA-256(key)>:<HMAC-SHA-256( key, SHA-256(document) ), 64 hex digits>
 *
 * Who steals the file of a directory can join it without work, and no other one whose tokens are others.
 */
import { concat, equalConstantTime, fromHex, toHex, utf8 } from '#base/bytes'
import { failure, type Result, success } from '#base/result'
import type { CryptoProvider } from '#crypto/provider'

export const TOKEN_HEADER = 'ippriv-token'
export const TOKEN_LENGTH = 32

/** Keys of tokens by their ids. */
export type TokenBook = ReadonlyMap<string, Uint8Array>

/** A file of them has no more. */
export const MOST_TOKENS = 1000

export const tokenKey = (token: Uint8Array, crypto: CryptoProvider): Uint8Array =>
  crypto.hash('sha256', concat(DOMAIN, token))

/** The header for a document. */
export function tokenProof(token: Uint8Array, document: Uint8Array, crypto: CryptoProvider): string {
  const key = tokenKey(token, crypto)
  return `${idOf(key, crypto)}:${toHex(proofOf(key, document, crypto))}`
}

/** Was this header made for this document, with a token of the book? */
export function isProof(
  header: string,
  document: Uint8Array,
  book: TokenBook,
  crypto: CryptoProvider,
): boolean {
  const { id, proof } = PROOF.exec(header)?.groups ?? {}
  const key = id === undefined ? undefined : book.get(id)
  return key !== undefined && equalConstantTime(fromHex(proof!), proofOf(key, document, crypto))
}

/**
 * Reads the file of a directory: a key of 64 hex digits on each line, and behind it whatever the operator wants to
 * remember. Lines that begin with # and empty ones are not read. Errors: IPP_CONFIG_INVALID, with the line.
 */
export function readTokens(text: string, crypto: CryptoProvider): Result<TokenBook> {
  const book = new Map<string, Uint8Array>()
  for (const [i, line] of text.split('\n').entries()) {
    if (/^\s*(#|$)/.test(line)) continue
    const { hex } = /^\s*(?<hex>[0-9a-f]{64})(\s|$)/.exec(line)?.groups ?? {}
    if (hex === undefined)
      return failure('IPP_CONFIG_INVALID', `line ${i + 1}: expected 64 hex digits, then a note`)
    const key = fromHex(hex)
    book.set(idOf(key, crypto), key)
    if (book.size > MOST_TOKENS) return failure('IPP_CONFIG_INVALID', `more than ${MOST_TOKENS} tokens`)
  }
  return success(book)
}

const DOMAIN = utf8('ippriv token 1\n')
const PROOF = /^(?<id>[0-9a-f]{16}):(?<proof>[0-9a-f]{64})$/

const idOf = (key: Uint8Array, crypto: CryptoProvider): string =>
  toHex(crypto.hash('sha256', key).subarray(0, 8))

const proofOf = (key: Uint8Array, document: Uint8Array, crypto: CryptoProvider): Uint8Array =>
  crypto.hmac('sha256', key, crypto.hash('sha256', document))
