/** What stock peers have where we have something else first: P-256, AES-128-GCM for IKE. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nodeCrypto } from '#crypto/node'
import { initOffer } from '#ikev2/exchange/init'
import { decodeHeader, HEADER_LENGTH } from '#ikev2/message/header'
import { decodePayloads, notify, type Payload } from '#ikev2/message/payload'
import { need } from '#ikev2/message/registry'
import { NOTIFY, TRANSFORM } from '#ikev2/numbers'
import { ikeRekeyProposals } from '#ikev2/proposal'
import { RogueClient, RogueNode, responder } from './rogue.ts'

const [P256, X25519] = [19, 31]
const wants = (group: number): Payload => notify(NOTIFY.number.INVALID_KE_PAYLOAD, Uint8Array.of(0, group))
const read = (datagram: Uint8Array): readonly Payload[] =>
  decodePayloads(decodeHeader(datagram).firstPayload, datagram.subarray(HEADER_LENGTH), 'request')

test('a responder without X25519: P-256, with the nonce and the proposals of before', () => {
  const node = new RogueNode()
  const [again] = node.clear([wants(P256)], new Uint8Array(8))
  const [before, after] = [read(node.request), read(again!)]
  assert.equal(need(before, 'KE').group, X25519)
  assert.equal(need(after, 'KE').group, P256)
  // RFC 5903 section 7: both coordinates.
  assert.equal(need(after, 'KE').data.length, 64)
  assert.deepEqual(need(after, 'Nonce'), need(before, 'Nonce'))
  assert.deepEqual(need(after, 'SA'), need(before, 'SA'))
})

test('a responder that wants the other group again and again is not obeyed for ever', () => {
  const node = new RogueNode()
  let rounds = 0
  for (let to = node.request; rounds < 20; rounds++) {
    const [next] = node.clear([wants(rounds % 2 === 0 ? P256 : X25519)], new Uint8Array(8), to)
    if (next === undefined) break
    to = next
  }
  assert.ok(rounds < 10, `${rounds} rounds`)
  assert.equal(node.subject.count('init-loop'), 1)
})

test('nobody is led from X25519 to P-256 at a node of ours', () => {
  const client = new RogueClient(responder(), nodeCrypto.random(8))
  client.offer = initOffer(nodeCrypto, P256, false)
  assert.deepEqual(client.init(), [wants(X25519)])
})

test('an initiator that has AES-128-GCM alone gets its IKE SA, and a rekey offers the same first', () => {
  const subject = responder()
  const client = new RogueClient(subject)
  const proposals = client.offer.proposals.map((proposal) => ({
    ...proposal,
    transforms: proposal.transforms
      .filter(({ type, id }) => type !== TRANSFORM.number.ENCR || id === 20)
      .map((each) =>
        each.type === TRANSFORM.number.ENCR ? { ...each, attributes: [{ type: 14, value: 128 }] } : each,
      ),
  }))
  client.offer = { ...client.offer, proposals }
  client.establish()
  assert.equal(client.channel?.suite.cipher, 'aes-128-gcm-16')
  const [offer] = ikeRekeyProposals(nodeCrypto.random(8), client.channel!.suite)
  assert.deepEqual(
    offer?.transforms
      .filter(({ type }) => type === TRANSFORM.number.ENCR)
      .map(({ id, attributes }) => [id, attributes[0]?.value]),
    [
      [20, 128],
      [20, 256],
      [28, undefined],
    ],
  )
  assert.equal(subject.last('child.established')?.peer.kind, 'none')
})
