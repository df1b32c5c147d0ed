/**
 * Every message of ours, octet by octet as it was written down: who changes the template of clients, or the size of a
 * message, sees it here. Run `node test/ikev2/golden.ts --write` when the change is meant.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex, toHex } from '#base/bytes'
import { encodeClear } from '#ikev2/message/encrypted'
import { decodeHeader } from '#ikev2/message/header'
import { encodePayloads } from '#ikev2/message/payload'
import { EXCHANGE } from '#ikev2/numbers'
import { type Golden, Opener, readGolden, recompute, titleOf } from './golden.ts'
import { CLIENT, NODE } from './pair.ts'

const written = readGolden()
const computed = recompute()

test('the same conversations', () => {
  assert.deepEqual(
    computed.map(({ name }) => name),
    written.map(({ name }) => name),
  )
})

for (const [index, { name, messages, keys }] of written.entries())
  test(`${name}: we still say the same`, () => {
    const now = computed[index]!
    // What they are first: it is easier to read than octets.
    const titles = (each: Pick<Golden, 'messages'>): string[] => each.messages.map(({ what }) => what)
    assert.deepEqual(titles(now), titles({ messages }))
    for (const [at, message] of messages.entries()) assert.deepEqual(now.messages[at], message, message.what)
    assert.deepEqual(now.keys, keys)
  })

for (const { name, messages, keys } of written)
  test(`${name}: what is written down is read, and encoded again the same`, () => {
    const opener = new Opener(keys)
    for (const { from, ports, what, hex } of messages) {
      const [remote, local] = from === 'client' ? [CLIENT, NODE] : [NODE, CLIENT]
      const path = {
        local: { address: local, port: ports[1] },
        remote: { address: remote, port: ports[0] },
      }
      const opened = opener.open(path, fromHex(hex))
      const { datagram, outer, inner } = opened
      assert.equal(titleOf(opened), what)
      assert.ok(hex.endsWith(toHex(datagram)))
      assert.equal(toHex(encodeClear(decodeHeader(datagram), outer)), toHex(datagram), what)
      if (inner !== undefined) assert.equal(toHex(encodePayloads(inner.payloads)), toHex(inner.octets), what)
    }
  })

test('every exchange is there, both ways, and whatever is told apart by its notify', () => {
  const said = new Set(written.flatMap(({ messages }) => messages.map(({ what }) => what)))
  const has = (...parts: readonly string[]): boolean =>
    [...said].some((what) => parts.every((part) => what.includes(part)))
  for (const exchange of Object.keys(EXCHANGE.number))
    for (const way of ['request', 'response']) assert.ok(has(`${exchange} `, way), `${exchange} ${way}`)
  for (const parts of [
    ['CREATE_CHILD_SA', 'request', 'N(REKEY_SA)'],
    ['CREATE_CHILD_SA', 'request: SK{ SA Nonce KE }'],
    ['IKE_FOLLOWUP_KE', 'N(ADDITIONAL_KEY_EXCHANGE)'],
    ['INFORMATIONAL', 'request: SK{  }'],
    ['INFORMATIONAL', 'request: SK{ Delete'],
    ['INFORMATIONAL', 'request', 'N(UPDATE_SA_ADDRESSES)', 'N(NAT_DETECTION_SOURCE_IP)'],
    ['INFORMATIONAL', 'request: SK{ N(TICKET_REQUEST) }'],
    ['INFORMATIONAL', 'response', 'N(TICKET_LT_OPAQUE)'],
    ['IKE_SESSION_RESUME', 'response: N(TICKET_NACK)'],
    ['IKE_SA_INIT', 'response: N(COOKIE)'],
    ['IKE_SA_INIT', 'response: N(COOKIE) N(PUZZLE)'],
    ['IKE_SA_INIT', 'request: N(COOKIE) PS SA'],
    ['IKE_AUTH', 'N(MOBIKE_SUPPORTED)'],
    ['IKE_AUTH', 'response: SK{ N(AUTHENTICATION_FAILED) }'],
    ['IKE_AUTH', 'N(INTERNAL_ADDRESS_FAILURE)'],
    ['IKE_AUTH', 'N(NO_PROPOSAL_CHOSEN)'],
    ['IKE_INTERMEDIATE', 'SKF{'],
  ])
    assert.ok(has(...parts), parts.join(' '))
})
