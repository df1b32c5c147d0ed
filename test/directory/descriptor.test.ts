import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { toHex, utf8 } from '#base/bytes'
import { isNodeId } from '#base/ids'
import { ip } from '#base/ip'
import { DOCUMENT_LIMITS, sealDocument } from '#directory/canonical'
import { decodeDescriptor, encodeDescriptor, sameSubstance } from '#directory/descriptor'
import { joinFamily } from '#directory/family'
import { crypto, describe, fieldsOf, keyPair, refused, START, value } from './network.ts'

const alder = describe('alder')
const body = () => JSON.parse(alder.text.split('\n')[0]!) as Record<string, unknown>
/** Any body at all, signed by alder. */
const forge = (content: object, signer = keyPair('alder')) =>
  utf8(value(sealDocument('descriptor', content, [signer], crypto)))
const decode = (text: string) => decodeDescriptor(utf8(text), crypto)

test('a descriptor reads back as it was written', () => {
  const { descriptor, text } = alder
  const { nodeId, identityKey, ...fields } = value(decode(text))
  assert.deepEqual(fields, fieldsOf('alder'))
  assert.deepEqual({ nodeId, identityKey, ...fields }, descriptor)
  assert.ok(isNodeId(nodeId))
  assert.equal(nodeId, toHex(crypto.hash('sha256', keyPair('alder').publicKey)))
  assert.match(text, /^\{"version":1,.*\}\n\{"key":"[0-9a-f]{64}","signature":"[A-Za-z0-9+/]{86}=="\}\n$/)
})

function spkiOf(namedCurve: string): Uint8Array {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve })
  return new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
}

test('a stock router: how anonymous peers authenticate to it, and a key of another kind', () => {
  const ikeKey = spkiOf('prime256v1')
  const ike = { method: 'psk', key: 'ippriv-public-well-known-psk' } as const
  const stock = describe('alder', { ike, ikeKey })
  assert.deepEqual(value(decode(stock.text)), stock.descriptor)
  assert.deepEqual(stock.descriptor.ike, ike)
  assert.deepEqual(stock.descriptor.ikeKey, ikeKey)
  assert.ok(!sameSubstance(stock.descriptor, alder.descriptor))
  assert.ok(
    !sameSubstance(stock.descriptor, describe('alder', { ike: { ...ike, key: 'x' }, ikeKey }).descriptor),
  )
})

test('a node of ours may have a P-256 key beside its Ed25519 key', () => {
  const ecdsaKey = spkiOf('prime256v1')
  const both = describe('alder', { ecdsaKey })
  assert.deepEqual(value(decode(both.text)), both.descriptor)
  assert.deepEqual(both.descriptor.ecdsaKey, ecdsaKey)
  assert.ok(!sameSubstance(both.descriptor, alder.descriptor))
  assert.ok(!sameSubstance(both.descriptor, describe('alder', { ecdsaKey: spkiOf('prime256v1') }).descriptor))
})

test('signing is deterministic, so that the same words are the same bytes', () => {
  assert.equal(describe('alder').text, alder.text)
  assert.ok(
    sameSubstance(alder.descriptor, describe('alder', { published: (START + 9) as never }).descriptor),
  )
  assert.ok(!sameSubstance(alder.descriptor, describe('alder', { port: 501 }).descriptor))
  assert.ok(!sameSubstance(alder.descriptor, describe('alder', { roles: ['middle'] }).descriptor))
})

test('a node cannot sign what others refuse', () => {
  const write = (changes: object) => encodeDescriptor(fieldsOf('alder', changes), keyPair('alder'), crypto)
  refused(write({ name: 'Alder' }), 'IPP_DIR_MALFORMED', /name/)
  refused(write({ name: '' }), 'IPP_DIR_MALFORMED', /name/)
  refused(write({ name: 'a'.repeat(20) }), 'IPP_DIR_MALFORMED', /name/)
  refused(write({ port: 0 }), 'IPP_DIR_MALFORMED', /port/)
  refused(write({ roles: [] }), 'IPP_DIR_MALFORMED', /roles/)
  refused(write({ software: '<b>' }), 'IPP_DIR_MALFORMED', /software/)
  refused(write({ address: ip('127.0.0.1') }), 'IPP_DIR_MALFORMED', /address/)
  refused(write({ address: ip('239.1.1.1') }), 'IPP_DIR_MALFORMED', /address/)
  refused(write({ software: 'x'.repeat(9000) }), 'IPP_DIR_OVERSIZED')
})

test('every changed field is refused by name', () => {
  const rows: [object, RegExp][] = [
    [{ version: 2 }, /version/],
    [{ identityKey: 'ab' }, /identityKey/],
    [{ ikeKey: 'AB'.repeat(32) }, /ikeKey/],
    [{ ikeKey: 'ab'.repeat(33) }, /ikeKey/],
    [{ ikeKey: 'ab'.repeat(1101) }, /ikeKey/],
    [{ ecdsaKey: 'ab'.repeat(91) }, /ecdsaKey/],
    [{ ecdsaKey: 'ab'.repeat(32) }, /ecdsaKey/],
    [{ ecdsaKey: toHex(spkiOf('secp384r1')) }, /ecdsaKey/],
    [{ ike: { method: 'null', key: 'k' } }, /ike/],
    [{ ike: { method: 'psk' } }, /ike/],
    [{ ike: { method: 'psk', key: '' } }, /ike/],
    [{ ike: { method: 'psk', key: 'a"b' } }, /ike/],
    [{ ike: { method: 'psk', key: 'k', id: 'x' } }, /additional/],
    [{ name: 'a\u0000b' }, /name/],
    [{ name: '<script>' }, /name/],
    [{ address: '198.51.100.007' }, /address/],
    [{ address: '198.51.100' }, /address/],
    [{ address: 7 }, /address/],
    [{ port: 65536 }, /port/],
    [{ port: 500.5 }, /port/],
    [{ roles: ['exit', 'entry'] }, /roles/],
    [{ roles: ['entry', 'entry'] }, /roles/],
    [{ roles: ['guard'] }, /roles/],
    [{ roles: 'exit' }, /roles/],
    [{ exitPolicy: ['accept everything'] }, /exitPolicy/],
    [{ exitPolicy: ['accept  0.0.0.0/0'] }, /exitPolicy: rule 1 is not in canonical form/],
    [{ exitPolicy: ['accept 192.0.2.1'] }, /exitPolicy: rule 1 is not in canonical form/],
    [{ exitPolicy: Array(65).fill('accept 0.0.0.0/0') }, /exitPolicy/],
    [{ published: -1 }, /published/],
    [{ published: 1e15 }, /published/],
    [{ published: '2026' }, /published/],
    [{ software: '' }, /software/],
    [{ extra: 1 }, /additional/],
    [{ toString: 'x' }, /additional/],
  ]
  for (const [change, where] of rows)
    refused(decodeDescriptor(forge({ ...body(), ...change }), crypto), 'IPP_DIR_MALFORMED', where)
  for (const field of Object.keys(body())) {
    const { [field]: _removed, ...rest } = body()
    refused(decodeDescriptor(forge(rest), crypto), 'IPP_DIR_MALFORMED', /required/)
  }
  for (const other of [[], [body()], { '': body() }])
    refused(decodeDescriptor(forge(other), crypto), 'IPP_DIR_MALFORMED')
})

test('an unknown key is not repeated in the refusal', () => {
  const outcome = decodeDescriptor(forge({ ...body(), '<img src=x>': 1 }), crypto)
  assert.ok(!outcome.ok && !outcome.where.includes('<'), 'a stranger writes into our messages')
})

test('signatures: changed, foreign, missing, twice', () => {
  const [line, signature] = alder.text.split('\n') as [string, string]
  refused(decode(`${line.replace('"alder"', '"adler"')}\n${signature}\n`), 'IPP_DIR_BAD_SIGNATURE')
  const birchKey = toHex(keyPair('birch').publicKey)
  refused(decode(`${line}\n${signature.replace(/[0-9a-f]{64}/, birchKey)}\n`), 'IPP_DIR_BAD_SIGNATURE')
  refused(decodeDescriptor(forge(body(), keyPair('birch')), crypto), 'IPP_DIR_IDENTITY')
  refused(decode(`${line}\n`), 'IPP_DIR_BAD_SIGNATURE', /no signature/)
  refused(decode(`${line}\n${signature}\n${signature}\n`), 'IPP_DIR_MALFORMED', /2 signatures/)
  refused(decode(`${line}\n${signature}`), 'IPP_DIR_MALFORMED', /not complete/)
  refused(decode(`${line}\n${signature.replace('key', 'yek')}\n`), 'IPP_DIR_MALFORMED', /signature 1/)
  refused(decode(`${line}\n${signature} \n`), 'IPP_DIR_MALFORMED', /signature 1/)
  // Another spelling of the same 64 octets: the last base64 digit has four bits that mean nothing.
  const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
  const respelled = signature.replace(/(.)==/, (_, d: string) => `${digits[digits.indexOf(d) + 1]}==`)
  refused(decode(`${line}\n${respelled}\n`), 'IPP_DIR_MALFORMED', /signature 1/)
})

test('a descriptor is not a consensus: the signed bytes name the kind', () => {
  const elsewhere = value(sealDocument('consensus', body(), [keyPair('alder')], crypto))
  refused(decode(elsewhere), 'IPP_DIR_BAD_SIGNATURE')
})

test('one spelling only: white space, escapes and repeated keys are refused', () => {
  const sign = (line: string) => {
    const key = keyPair('alder')
    const signature = crypto.ed25519Sign(key.privateKey, utf8(`ippriv descriptor 1\n${line}`))
    const base64 = Buffer.from(signature).toString('base64')
    return `${line}\n{"key":"${toHex(key.publicKey)}","signature":"${base64}"}\n`
  }
  const line = JSON.stringify(body())
  value(decode(sign(line)))
  for (const other of [
    line.replace(':', ': '),
    line.replace('"alder"', '"\\u0061lder"'),
    line.replace('"port":500', '"port":501,"port":500'),
    line.replace('"port":500', '"port":5e2'),
    line.replace('}', ',"__proto__":{}}'),
    '{',
    '[[[[',
    '['.repeat(8000),
    'null',
  ])
    refused(decode(sign(other)), 'IPP_DIR_MALFORMED')
})

test('octets that are not printable ASCII are refused before anything else', () => {
  for (const octet of ['\u0000', '\u001b', '\r', '\u007f', 'ä', '\t'])
    refused(decode(alder.text.replace('alder', `al${octet}der`)), 'IPP_DIR_MALFORMED', /octet \d+/)
  refused(decodeDescriptor(Uint8Array.of(), crypto), 'IPP_DIR_MALFORMED')
  refused(
    decodeDescriptor(new Uint8Array(DOCUMENT_LIMITS.descriptor.octets + 1), crypto),
    'IPP_DIR_OVERSIZED',
  )
  refused(decode('\n'.repeat(100)), 'IPP_DIR_MALFORMED')
})

test('mutated descriptors never throw and never pass', () => {
  const original = utf8(alder.text)
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(original.length - 1), fc.nat(255), fc.constantFrom('set', 'cut', 'add')), {
        minLength: 1,
        maxLength: 4,
      }),
      (edits) => {
        let bytes = Array.from(original)
        for (const [place, octet, kind] of edits)
          bytes =
            kind === 'set'
              ? bytes.with(Math.min(place, bytes.length - 1), octet)
              : bytes.toSpliced(place, kind === 'cut' ? 1 : 0, ...(kind === 'add' ? [octet] : []))
        const mutated = Uint8Array.from(bytes)
        const outcome = decodeDescriptor(mutated, crypto)
        assert.equal(outcome.ok, Buffer.compare(mutated, original) === 0)
      },
    ),
    { numRuns: 500 },
  )
})

test('signed nonsense never throws and never passes', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), fc.constantFrom(...Object.keys(body())), (nonsense, field) => {
      const original = body()
      const changed = { ...original, [field]: nonsense }
      const outcome = sealDocument('descriptor', changed, [keyPair('alder')], crypto)
      if (!outcome.ok) return
      const decoded = decodeDescriptor(utf8(outcome.value), crypto)
      if (decoded.ok) assert.ok(decoded.value.nodeId === alder.descriptor.nodeId)
    }),
    { numRuns: 300 },
  )
})

test('a family is believed when its key and the node say so', () => {
  const identity = keyPair('alder')
  const family = joinFamily(identity.publicKey, keyPair('a family'), crypto)
  const member = describe('alder', { family, declared: 5000 })
  assert.deepEqual(member.descriptor.family, family)
  assert.equal(member.descriptor.declared, 5000)
  assert.deepEqual(value(decodeDescriptor(utf8(member.text), crypto)), member.descriptor)
  refused(
    encodeDescriptor(fieldsOf('birch', { family }), keyPair('birch'), crypto),
    'IPP_DIR_IDENTITY',
    /family/,
  )
  const other = { ...family, key: keyPair('another family').publicKey }
  refused(
    encodeDescriptor(fieldsOf('alder', { family: other }), identity, crypto),
    'IPP_DIR_IDENTITY',
    /family/,
  )
})
