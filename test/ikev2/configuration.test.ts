/** Configuration payloads of stock clients, which ask for more than ours do (RFC 7296 sections 2.9 and 3.15). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Payload, WireSelector } from '#ikev2/message/payload'
import { type Alter, RogueClient, responder } from './rogue.ts'

const NOTHING = new Uint8Array(0)
const ANY_PORT = { kind: 'range', protocol: 0, startPort: 0, endPort: 65535 } as const
const ANY_IPV4: WireSelector = { ...ANY_PORT, start: new Uint8Array(4), end: new Uint8Array(4).fill(255) }
const ANY_IPV6: WireSelector = { ...ANY_PORT, start: new Uint8Array(16), end: new Uint8Array(16).fill(255) }

/** A request for attributes of these types, for any traffic of both families. */
const asking =
  (...types: readonly number[]): Alter =>
  (payloads) =>
    payloads.map((payload): Payload => {
      if (payload.kind === 'CP')
        return { ...payload, attributes: types.map((type) => ({ type, data: NOTHING })) }
      if (payload.kind === 'TSi') return { ...payload, selectors: [ANY_IPV6, ANY_IPV4] }
      if (payload.kind === 'TSr') return { ...payload, selectors: [ANY_IPV4, ANY_IPV6] }
      return payload
    })

test('IPv4 and IPv6 are asked for: IPv4 is lent, and the traffic narrowed to it', () => {
  const subject = responder()
  const client = new RogueClient(subject)
  client.init()
  // IPv6 and its DNS, subnets and attributes one could ask for, a private one, and IPv4 last.
  const answer = client.authenticate(asking(8, 10, 13, 14, 0x7000, 3, 1)) ?? []
  const lent = Uint8Array.of(10, 1, 0, 1)
  assert.deepEqual(
    answer.find(({ kind }) => kind === 'CP'),
    { kind: 'CP', type: 2, attributes: [{ type: 1, data: lent }] },
  )
  assert.deepEqual(
    answer.find(({ kind }) => kind === 'TSi'),
    { kind: 'TSi', selectors: [{ ...ANY_PORT, start: lent, end: lent }] },
  )
  assert.deepEqual(
    answer.find(({ kind }) => kind === 'TSr'),
    { kind: 'TSr', selectors: [ANY_IPV4] },
  )
  assert.equal(subject.last('child.established')?.leased, '10.1.0.1')
})

test('IPv6 alone is asked for: INTERNAL_ADDRESS_FAILURE beside a valid AUTH, and no address is spent', () => {
  let lent = 0
  const subject = responder({
    lease: () => {
      lent++
      return undefined
    },
  })
  const client = new RogueClient(subject)
  client.init()
  const answer = client.authenticate(asking(8)) ?? []
  assert.deepEqual(
    answer.map((payload) => (payload.kind === 'Notify' ? payload.type : payload.kind)),
    ['IDr', 'AUTH', 36],
  )
  assert.equal(lent, 0)
  assert.equal(subject.last('child.established'), undefined)
})
