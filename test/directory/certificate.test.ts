/** Signing keys apart from identity keys: the identities stay offline, the daemons sign with keys they certified. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8 } from '#base/bytes'
import { unixTime } from '#base/time'
import { joinDocument, openDocument, signBody } from '#directory/canonical'
import {
  formatCertificate,
  identityOf,
  isCertified,
  issueCertificate,
  parseCertificate,
  type Signer,
} from '#directory/certificate'
import { signConsensus, verifyConsensus } from '#directory/consensus'
import { decodeDescriptor } from '#directory/descriptor'
import { signRequest, verifyRequest } from '#directory/http-signature'
import { decodeEndorsement, decodeRoll, encodeEndorsement, encodeRoll } from '#directory/roll'
import { decodeVote, encodeVote } from '#directory/vote'
import { AUTHORITIES, vote as castVote, NEXT, PINNED, TERMS } from './authorities.ts'
import { at, crypto, describe, draft, keyPair, listed, refused, START, value } from './network.ts'

const DAY = 86_400

/** A signing key of an authority, valid from yesterday for ninety days unless said otherwise. */
function certified(who: number, name = `signing ${who}`, from = -DAY, until = 90 * DAY): Signer {
  const pair = keyPair(name)
  const times = { validAfter: unixTime(START + from), validUntil: unixTime(START + until) }
  return { ...pair, certificate: issueCertificate(pair.publicKey, times, AUTHORITIES[who]!, crypto) }
}

const sign = (signers: readonly Signer[]) =>
  value(signConsensus(draft(listed(['alder']), { serial: START / 3600 }), signers, crypto)).text
const verify = (text: string, now = START as number) =>
  verifyConsensus(utf8(text), { authorities: PINNED, threshold: 3, now: unixTime(now) }, crypto)

test('a document signed with certified keys is believed by who pins the identities', () => {
  const text = sign([certified(0), certified(1), certified(2)])
  value(verify(text))
  // With an identity among them.
  value(verify(sign([certified(0), certified(1), AUTHORITIES[2]!])))
  assert.ok(!text.split('\n')[0]!.includes('certificate'), 'the body does not depend on who signs')
})

test('t-1 certified signatures, expired and forged certificates are refused', () => {
  const [a, b, c] = [certified(0), certified(1), certified(2)]
  const few = /2 valid signatures .* 3 needed/
  refused(verify(sign([a, b])), 'IPP_DIR_BAD_SIGNATURE', few)
  // Two keys of one authority are one authority.
  refused(verify(sign([a, b, certified(1, 'another of b')])), 'IPP_DIR_BAD_SIGNATURE', few)
  refused(verify(sign([a, b, AUTHORITIES[1]!])), 'IPP_DIR_BAD_SIGNATURE', few)
  refused(verify(sign([a, b, certified(2, 'old', -90 * DAY, -1)])), 'IPP_DIR_BAD_SIGNATURE', few)
  refused(verify(sign([a, b, certified(2, 'young', DAY)])), 'IPP_DIR_BAD_SIGNATURE', few)
  const stranger = keyPair('stranger')
  const times = { validAfter: START, validUntil: at(DAY) }
  const own = issueCertificate(stranger.publicKey, times, stranger, crypto)
  refused(verify(sign([a, b, { ...stranger, certificate: own }])), 'IPP_DIR_BAD_SIGNATURE', few)
  const forged = { ...own, identity: AUTHORITIES[2]!.publicKey }
  refused(verify(sign([a, b, { ...stranger, certificate: forged }])), 'IPP_DIR_BAD_SIGNATURE', few)
  // The certificate of another key.
  refused(verify(sign([a, b, { ...stranger, certificate: c.certificate! }])), 'IPP_DIR_BAD_SIGNATURE', few)
  // A longer life than the identity gave it.
  const longer = { ...certified(2, 'old', -90 * DAY, -1).certificate!, validUntil: at(DAY) }
  refused(verify(sign([a, b, { ...keyPair('old'), certificate: longer }])), 'IPP_DIR_BAD_SIGNATURE', few)
})

test('votes, rolls and signatures carry the certificate and name the identity', () => {
  const signer = certified(3)
  assert.deepEqual(identityOf(signer), PINNED[3])
  const vote = value(encodeVote(castVote(3, []), TERMS, signer, crypto))
  assert.deepEqual(
    value(decodeVote(utf8(vote.text), PINNED, TERMS, crypto, new Map(), START)).author,
    PINNED[3],
  )
  refused(decodeVote(utf8(vote.text), PINNED, TERMS, crypto), 'IPP_DIR_BAD_SIGNATURE')
  refused(
    decodeVote(utf8(vote.text), PINNED, TERMS, crypto, new Map(), at(90 * DAY)),
    'IPP_DIR_BAD_SIGNATURE',
  )
  const roll = value(encodeRoll({ period: NEXT, votes: [vote.digest] }, signer, crypto))
  assert.deepEqual(value(decodeRoll(utf8(roll.text), PINNED, crypto, START)).author, PINNED[3])
  const body = '{"version":1}'
  const signature = signBody('consensus', body, signer, crypto)
  const said = value(encodeEndorsement({ period: NEXT, digest: vote.digest, signature }, signer, crypto))
  const heard = value(decodeEndorsement(utf8(said.text), PINNED, crypto, START))
  assert.deepEqual(heard, said)
  // What comes out of it is the signature line of the document.
  const joined = value(joinDocument('consensus', body, [heard.signature]))
  assert.deepEqual(value(openDocument('consensus', utf8(joined))).signatures, [signature])
})

test('requests between authorities name the certified key', () => {
  const head = { method: 'GET', path: '/v1/authority/vote/7' } as const
  const headers = signRequest(head, undefined, certified(1), crypto)
  const arrived = { ...head, header: (name: string) => headers[name] }
  assert.deepEqual(value(verifyRequest(arrived, PINNED, crypto, START)).key, PINNED[1])
  refused(verifyRequest(arrived, PINNED, crypto, at(90 * DAY)), 'IPP_DIR_BAD_SIGNATURE')
  refused(verifyRequest(arrived, [PINNED[0]!], crypto, START), 'IPP_DIR_BAD_SIGNATURE')
})

test('a node signs its descriptor itself', () => {
  const { text } = describe('alder')
  const [body] = text.split('\n')
  const signer = keyPair('helper')
  const times = { validAfter: START, validUntil: at(DAY) }
  const certificate = issueCertificate(signer.publicKey, times, keyPair('alder'), crypto)
  const signature = signBody('descriptor', body!, { ...signer, certificate }, crypto)
  const other = value(joinDocument('descriptor', body!, [signature]))
  refused(decodeDescriptor(utf8(other), crypto), 'IPP_DIR_BAD_SIGNATURE')
})

test('the line of a certificate: read as it was written, or not at all', () => {
  const { publicKey, certificate } = certified(0) as Required<Signer>
  const line = formatCertificate(publicKey, certificate)
  const read = parseCertificate(line, publicKey)
  assert.deepEqual(read, certificate)
  assert.ok(isCertified(publicKey, read!, START, crypto))
  assert.equal(parseCertificate(line, PINNED[0]!), undefined)
  for (const wrong of ['', `${line}\n`, line.replace('"validAfter":', '"validAfter":0'), line.slice(1)])
    assert.equal(parseCertificate(wrong, publicKey), undefined)
  const later = line.replace(/"validUntil":\d/, (found) => `${found}9`)
  const stretched = parseCertificate(later, publicKey)
  assert.ok(stretched !== undefined && !isCertified(publicKey, stretched, START, crypto))
})
