/** Ten thousand made-up nodes from 300 addresses, over real HTTP: nobody who is there loses anything, and nobody waits. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Agent, request } from 'undici'
import { utf8 } from '#base/bytes'
import { formatPrefix, ip } from '#base/ip'
import { unixTime } from '#base/time'
import { verifyConsensus } from '#directory/consensus'
import { PINNED } from './authorities.ts'
import { Councils } from './councils.ts'
import { at, crypto, describe, PERIOD, START, value } from './network.ts'

const FAKES = 10_000
const HONEST = ['alder', 'birch', 'cedar', 'dogwood', 'elm', 'fir']

test(
  '10,000 fake descriptors from 300 addresses: the consensus and the response time stay',
  {
    timeout: 600_000,
  },
  () =>
    Councils.run(
      async (councils) => {
        const dispatcher = new Agent({ connections: 4 })
        const post = async (who: number, text: string): Promise<number> => {
          const url = `${councils.seat(who).url}/v1/descriptor`
          const headers = { 'content-type': 'text/plain' }
          const reply = await request(url, { method: 'POST', headers, body: text, dispatcher })
          await reply.body.dump()
          return reply.statusCode
        }
        const consensus = async () => {
          const reply = await request(`${councils.seat(0).url}/v1/consensus`)
          const trust = {
            authorities: PINNED.slice(0, 3),
            threshold: 2,
            now: unixTime(councils.clock.seconds),
          }
          return value(verifyConsensus(utf8(await reply.body.text()), trust, crypto))
        }
        const placesOf = (nodes: Awaited<ReturnType<typeof consensus>>['nodes']) =>
          nodes
            .filter(({ name }) => HONEST.includes(name))
            .map(({ name, pool }) => `${name} ${formatPrefix(pool)}`)
        for (const name of HONEST) await councils.uploadToAll(describe(name).text)
        await councils.runUntil(START + PERIOD + 60)
        const before = await consensus()
        assert.equal(before.nodes.length, HONEST.length)
        const quiet = await medianOf(20, consensus)

        // Every one has an identity of its own; two thirds of the authorities are enough to be listed.
        const answers = new Map<number, number>()
        const waits: number[] = []
        let next = 0
        const pour = async (): Promise<void> => {
          for (let i = next++; i < FAKES; i = next++) {
            const address = ip(`198.51.${100 + (i % 2)}.${1 + (Math.floor(i / 2) % 150)}`)
            const { text } = describe(`fake-${i}`, { address, published: at(PERIOD + 60) })
            for (const who of [0, 1]) {
              const status = await post(who, text)
              answers.set(status, (answers.get(status) ?? 0) + 1)
            }
            if (i % 250 === 0) waits.push(await medianOf(1, consensus))
          }
        }
        await Promise.all([pour(), pour()])
        await dispatcher.destroy()
        assert.equal(answers.get(201), 2 * 16, 'eight of each /24')
        assert.equal(answers.get(409), 2 * (FAKES - 16))
        const { counters } = councils.seat(0).council
        assert.equal(
          counters.get('refused.IPP_DIR_CROWDED') + counters.get('refused.IPP_DIR_CONFLICT'),
          FAKES - 16,
        )
        const loaded = waits.toSorted((a, b) => a - b)[Math.floor(waits.length / 2)]!
        assert.ok(loaded < quiet + 250, `${loaded.toFixed(0)} ms under load, ${quiet.toFixed(0)} ms before`)

        for (const name of HONEST)
          await councils.uploadToAll(describe(name, { published: at(PERIOD + 120) }).text)
        const began = performance.now()
        await councils.runUntil(START + 2 * PERIOD + 60)
        assert.ok(performance.now() - began < 60_000)
        const after = await consensus()
        assert.equal(after.serial, before.serial + 1)
        assert.deepEqual(placesOf(after.nodes), placesOf(before.nodes))
        const fakes = after.nodes.filter(({ name }) => !HONEST.includes(name))
        assert.ok(fakes.length <= 16, `${fakes.length} were listed`)
        for (const { flags } of fakes)
          assert.deepEqual(
            (flags ?? []).filter((flag) => !['running', 'valid'].includes(flag)),
            [],
            'nobody is trusted at once',
          )
      },
      { count: 3, threshold: 2 },
    ),
)

/** Milliseconds. */
async function medianOf(count: number, action: () => Promise<unknown>): Promise<number> {
  const times: number[] = []
  for (let i = 0; i < count; i++) {
    const began = performance.now()
    await action()
    times.push(performance.now() - began)
  }
  return times.toSorted((a, b) => a - b)[Math.floor(count / 2)]!
}
