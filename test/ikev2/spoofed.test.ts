/**
 * A flood of IKE_SA_INIT from addresses that do not exist, in virtual time: what it must not do to those who are there,
 * to one who comes, and to the memory of the node.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type UdpEndpoint, uint32ToIp } from '#base/ip'
import type { IkeEvent } from '#ikev2/events'
import { initOffer, initRequest } from '#ikev2/exchange/init'
import { encodeClear } from '#ikev2/message/encrypted'
import { EXCHANGE } from '#ikev2/numbers'
import { anonymousRequest, connect, isEmpty, NODE, ofKind, type Pair, pair } from './pair.ts'

const PER_SECOND = 2000
/** What comes at once, so often. */
const BURST = 20
const SECONDS = 5
/** 198.18.0.0/15, for benchmarks (RFC 2544): nobody is there. */
const NOBODY = 0xc612_0000

/** Each as if from another host, with an SPI and a nonce of its own. */
class Flood {
  readonly #stage: Pair
  #sent = 0

  constructor(stage: Pair) {
    this.#stage = stage
  }

  run(milliseconds: number): void {
    const { network } = this.#stage
    for (let at = 0; at < milliseconds; at += (1000 * BURST) / PER_SECOND) {
      for (let i = 0; i < BURST; i++)
        network.send({
          source: this.#source(),
          destination: { address: NODE, port: 500 },
          bytes: this.#next(),
        })
      network.run((1000 * BURST) / PER_SECOND)
    }
  }

  get sent(): number {
    return this.#sent
  }

  #source(): UdpEndpoint {
    return { address: uint32ToIp(NOBODY + (this.#sent % 0x2_0000)), port: 1024 + (this.#sent % 60_000) }
  }

  #next(): Uint8Array {
    const { client, network } = this.#stage
    this.#offer ??= initOffer(client.crypto)
    const spiInitiator = network.rng.bytes(8)
    const offer = { ...this.#offer, nonce: network.rng.bytes(32) }
    const exchange = EXCHANGE.number.IKE_SA_INIT
    const header = { spiInitiator, spiResponder: new Uint8Array(8), exchange, messageId: 0 }
    this.#sent++
    return encodeClear({ ...header, fromInitiator: true, response: false }, initRequest(offer))
  }

  #offer: ReturnType<typeof initOffer> | undefined
}

test('a flood of spoofed IKE_SA_INIT: circuits go on and renew, a newcomer completes, and nothing is left of it', () => {
  const stage = pair({ policy: { lifetimes: { child: 3_600_000, ike: 3_600_000 } } })
  const { network, client, node, key } = stage
  const old = connect(stage, { lifetimes: { child: 1500, ike: 2200 } })
  assert.ok(ofKind(client, 'child.established', old))
  const calm = node.engine.counters()
  const flood = new Flood(stage)

  flood.run(1000)
  const newcomer = client.engine.initiate(anonymousRequest(key), network.now)
  flood.run(2000)
  assert.ok(ofKind(client, 'child.established', newcomer), 'a newcomer returns its cookie and completes')
  flood.run(SECONDS * 1000 - 3000)
  assert.equal(flood.sent, SECONDS * PER_SECOND)

  const { 'sas.half-open': halfOpen, 'sas.all': all, 'cookie-demanded': cookies } = node.engine.counters()
  assert.ok(halfOpen! <= 32, `${halfOpen} half-open IKE SAs`)
  assert.ok(all! <= calm['sas.all']! + 1 + 32 + 2, `${all} IKE SAs`)
  assert.ok(cookies! >= flood.sent - 32 - 1, `${cookies} cookies for ${flood.sent} requests`)
  const strangers = node.events.filter(({ kind }) => kind === 'child.established').length - 2
  assert.equal(strangers, 0, 'no Child SA for anybody but the two')

  assert.ok(!ofKind(client, 'ike.closed', old), 'the circuit of before goes on')
  assert.ok(renewals(client.events, old) >= 2, 'and its Child SA was renewed on time')

  network.run(40_000)
  assert.equal(node.engine.counters()['sas.half-open'], 0)
  for (const sa of [old, newcomer]) client.engine.close(sa, network.now)
  network.run(60_000)
  assert.ok(isEmpty(node) && isEmpty(client), 'nothing is left')
})

const renewals = (events: readonly IkeEvent[], sa: number): number =>
  events.filter((event) => event.kind === 'child.switched' && event.sa === sa).length
