import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8 } from '#base/bytes'
import { signRequest, verifyRequest } from '#directory/http-signature'
import { crypto, keyPair, refused, START, value } from './network.ts'

const KEY = keyPair('authority a')
const BODY = utf8('{"hello":"world"}\n')
const HEAD = { method: 'POST', path: '/v1/authority/vote' } as const

const arrived = (headers: Record<string, string>, changes: Partial<Record<string, string>> = {}) => {
  const all: Record<string, string | undefined> = {
    'content-length': String(BODY.length),
    ...headers,
    ...changes,
  }
  return { ...HEAD, header: (name: string) => all[name] }
}

test('what was signed is what arrives: sender, length and body', () => {
  const headers = signRequest(HEAD, BODY, KEY, crypto)
  const sender = value(
    verifyRequest(arrived(headers), [keyPair('b').publicKey, KEY.publicKey], crypto, START),
  )
  assert.deepEqual(sender.key, KEY.publicKey)
  assert.equal(sender.length, BODY.length)
  assert.ok(sender.announced(BODY))
  assert.ok(!sender.announced(BODY.slice(1)))
  assert.ok(!sender.announced(utf8('{"hello":"World"}\n')))
})

test('the signature base is that of RFC 9421 section 2.5', () => {
  const headers = signRequest(HEAD, BODY, KEY, crypto)
  const [, params] = /^sig=(.*)$/.exec(headers['signature-input']!)!
  const base = [
    '"@method": POST',
    '"@path": /v1/authority/vote',
    `"content-digest": ${headers['content-digest']}`,
    `"content-length": ${BODY.length}`,
    `"@signature-params": ${params}`,
  ].join('\n')
  const [, encoded] = /^sig=:(.*):$/.exec(headers.signature!)!
  assert.ok(crypto.ed25519Verify(KEY.publicKey, utf8(base), new Uint8Array(Buffer.from(encoded!, 'base64'))))
})

test('anything else than what was signed is refused', () => {
  const headers = signRequest(HEAD, BODY, KEY, crypto)
  const trusted = [KEY.publicKey]
  const other = signRequest(HEAD, utf8('other'), KEY, crypto)
  const input = headers['signature-input']!
  const changes: Partial<Record<string, string | undefined>>[] = [
    { signature: undefined },
    { 'signature-input': undefined },
    { 'content-digest': undefined },
    { 'content-length': undefined },
    { 'content-length': '19' },
    { 'content-length': '018' },
    { 'content-digest': other['content-digest'] },
    { signature: other.signature },
    { 'signature-input': input.replace('"@path" ', '') },
    { 'signature-input': input.replace('ed25519', 'hmac-sha256') },
    { 'signature-input': `${input};tag="x"` },
  ]
  for (const change of changes) {
    const attempt = arrived(headers, change as Record<string, string>)
    refused(verifyRequest(attempt, trusted, crypto, START), 'IPP_DIR_BAD_SIGNATURE')
  }
  for (const head of [
    { path: '/v1/authority/roll' },
    { path: '/v1/authority/vote?x' },
    { method: 'GET' as const },
  ])
    refused(verifyRequest({ ...arrived(headers), ...head }, trusted, crypto, START), 'IPP_DIR_BAD_SIGNATURE')
  refused(verifyRequest(arrived(headers), [keyPair('b').publicKey], crypto, START), 'IPP_DIR_BAD_SIGNATURE')
})

test('a question has no body to announce', () => {
  const head = { method: 'GET', path: '/v1/authority/vote/7' } as const
  const headers = signRequest(head, undefined, KEY, crypto)
  assert.deepEqual(Object.keys(headers), ['signature-input', 'signature'])
  const sender = value(
    verifyRequest({ ...head, header: (name) => headers[name] }, [KEY.publicKey], crypto, START),
  )
  assert.equal(sender.length, 0)
})
