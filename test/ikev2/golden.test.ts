/** Every message of the traces, decoded and encoded again: the same octets. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex, toHex } from '#base/bytes'
import { encodeClear } from '#ikev2/message/encrypted'
import { decodeHeader, HEADER_LENGTH } from '#ikev2/message/header'
import { decodePayloads } from '#ikev2/message/payload'
import { EXCHANGE } from '#ikev2/numbers'
import { mlkem, openMessage, type TraceMessage, traces } from './traces.ts'

const KINDS_OF_AES_TRACE = [
  'SA KE Nonce Notify Notify Notify Notify Notify',
  // The responder also announces CHILDLESS_IKEV2_SUPPORTED (RFC 6023).
  'SA KE Nonce Notify Notify Notify Notify Notify Notify',
]

for (const { name, cipher, trace } of traces()) {
  for (const [index, message] of trace.messages.entries()) {
    const header = decodeHeader(fromHex(message.hex))
    const title = `${EXCHANGE.nameOf(header.exchange)} ${header.response ? 'response' : 'request'}`
    test(`${name} ${index}: ${title}`, () => {
      assert.equal(header.majorVersion, 2)
      if (header.exchange === EXCHANGE.number.IKE_SA_INIT) return assertClear(message)
      // After the IKE SA rekey the trace goes on under the second set of keys.
      const rekeyed = toHex(header.spiInitiator) !== trace.ike_sa_init.spi_i
      const opened = openMessage(message, cipher, trace.ike_sas[rekeyed ? 1 : 0]!)
      assert.equal(toHex(opened.key.sealWithIv(opened.header, opened.payloads, opened.iv)), message.hex)
    })
  }
}

test('x25519-mlkem768: IKE_SA_INIT and the outside of every protected message', () => {
  const { messages } = mlkem()
  assert.equal(messages.length, 23)
  for (const message of messages) {
    const datagram = fromHex(message.hex)
    const header = decodeHeader(datagram)
    assert.equal(header.fromInitiator, message.from === 'initiator')
    const payloads = decodePayloads(header.firstPayload, datagram.subarray(HEADER_LENGTH), 'trace')
    assert.equal(toHex(encodeClear(header, payloads)), message.hex)
  }
  assertClear(messages[0]!)
  assertClear(messages[1]!)
})

test('the AES trace says what a reader expects', () => {
  const { trace } = traces()[0]!
  const kinds = trace.messages.slice(0, 2).map(({ hex }) => {
    const datagram = fromHex(hex)
    const payloads = decodePayloads(
      decodeHeader(datagram).firstPayload,
      datagram.subarray(HEADER_LENGTH),
      'trace',
    )
    return payloads.map(({ kind }) => kind).join(' ')
  })
  assert.deepEqual(kinds, KINDS_OF_AES_TRACE)
})

function assertClear(message: TraceMessage): void {
  const datagram = fromHex(message.hex)
  const header = decodeHeader(datagram)
  const payloads = decodePayloads(header.firstPayload, datagram.subarray(HEADER_LENGTH), 'trace')
  assert.equal(toHex(encodeClear(header, payloads)), message.hex)
}
