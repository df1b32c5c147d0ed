/** Cells: a stock router in telescopes that our client builds, and in tunnels with our nodes. */
import assert from 'node:assert/strict'
import type { EspCipher } from '#crypto/suites'
import { until } from '#demo/command'
import { type ClientStatus, statusOf } from '#demo/daemons'
import type { Cells } from './cell.ts'
import type { Relay } from './relay.ts'
import { NIST_OFFERS, SUITES } from './routers.ts'
import { LIMIT, lastLines, type Stage } from './stage.ts'

const CIPHERS = Object.keys(SUITES) as (keyof typeof SUITES & EspCipher)[]
const [FIRST, LAST] = [CIPHERS[0]!, CIPHERS.at(-1)!]

export async function playTelescopes(cells: Cells, stage: Stage, relay: Relay): Promise<void> {
  await begin(cells, stage, relay)
  await rekey(cells, stage, relay)
  await end(cells, stage, relay)
  await move(cells, stage, relay)
  await cells.cell('a telescope', 'charon answers our liveness checks', async () => {
    const checks = await until('a liveness check', LIMIT, async () => {
      // A DELETE has a payload.
      const answered = (await relay.charon.logFrom(0)).match(/parsed INFORMATIONAL request \d+ \[ \]/g)
      return answered === null ? undefined : answered.length
    })
    return `${checks} answered`
  })
}

/** These leave the router with another key than it had. */
export async function playSignatures(cells: Cells, stage: Stage, relay: Relay): Promise<void> {
  await relay.run(stage.charon('cedar', 'signatures'), NIST_OFFERS)
  for (const kind of ['ECDSA P-256', 'ECDSA P-384', 'RSA 2048'] as const) {
    const name = `charon has P-256 alone, and signs with ${kind}: exit, overlay peer`
    await cells.cell('a signatures', name, async () => {
      await relay.giveKey(kind)
      await stage.restartClient(['alder', 'cedar'], FIRST)
      const told = await stage.carries(await stage.circuit(), 'cedar', FIRST)
      assert.match(await relay.charon.sas(), /^telescope: (?:.*\n){3}.*ECP_256/m)
      return told
    })
  }
}

async function begin({ cell }: Cells, stage: Stage, relay: Relay): Promise<void> {
  await cell('c overlay', 'our node begins the tunnel to charon', () => relay.tunnelUp('alder'))
  await cell('c overlay', 'charon begins the tunnel to our node', async () => {
    // Our node may have begun one when it started; when that one ends, it leaves the next to the lower id at first.
    await until('charon to be first', LIMIT, async () => {
      await relay.charon.swanctl('--terminate', '--ike', 'ov-birch', '--timeout', '5')
      const { stdout } = await relay.charon.swanctl('--initiate', '--child', 'ov-birch', '--timeout', '30')
      assert.match(stdout, /initiate completed successfully/, lastLines(stdout))
      return true
    })
    return await relay.tunnelUp('birch')
  })
  for (const cipher of CIPHERS) {
    await cell('a telescope', `charon as exit, ${cipher}`, async () => {
      await stage.restartClient(['alder', 'birch', 'cedar'], cipher)
      return await stage.carries(await stage.circuit(), 'cedar', cipher)
    })
    await cell('a telescope', `charon as middle, ${cipher}`, async () =>
      stage.carries(await stage.build('alder', 'cedar', 'birch'), 'birch', cipher),
    )
    await cell('a telescope', `charon as exit of two hops, ${cipher}`, async () =>
      stage.carries(await stage.build('alder', 'cedar'), 'cedar', cipher),
    )
  }
}

async function rekey({ cell }: Cells, stage: Stage, relay: Relay): Promise<void> {
  const WHAT = { child: 'Child', ike: 'IKE' } as const
  const KINDS = ['child', 'ike'] as const
  for (const [part, where, name] of [
    ['a telescope', 'exit', 'telescope'],
    ['c overlay', 'tunnel', 'ov-alder'],
  ] as const) {
    for (const kind of KINDS)
      await cell(part, `charon rekeys the ${WHAT[kind]} SA of the ${where}`, async () => {
        await relay.rekey(kind, name)
        return await stage.carries(await stage.circuit(), 'cedar', LAST)
      })
  }
  for (const kind of KINDS) {
    await cell('a telescope', `our client rekeys the ${WHAT[kind]} SA of the exit`, async () => {
      const circuit = await stage.circuit()
      await relay.rekeyedBy('client', kind, { id: circuit.id, hop: 3 })
      return await stage.carries(circuit, 'cedar', LAST)
    })
    await cell('a telescope', `our client rekeys the ${WHAT[kind]} SA of the middle`, async () => {
      const circuit = await stage.build('alder', 'cedar', 'birch')
      await relay.rekeyedBy('client', kind, { id: circuit.id, hop: 2 })
      return await stage.carries(circuit, 'birch', LAST)
    })
    await cell('c overlay', `our node rekeys the ${WHAT[kind]} SA of the tunnel`, async () => {
      const circuit = await stage.build('alder', 'cedar', 'birch')
      await relay.rekeyedBy('alder', kind, { peer: 'cedar' })
      return await stage.carries(circuit, 'birch', LAST)
    })
  }
}

async function end({ cell }: Cells, stage: Stage, relay: Relay): Promise<void> {
  await cell('a telescope', 'our client deletes a hop at charon', async () => {
    const before = await relay.telescopes()
    const { circuits } = await statusOf<ClientStatus>(stage.scene.daemons.get('client')!)
    for (const { id } of circuits.filter((circuit) => !circuit.default))
      await stage.request('client', 'circuits.close', { id })
    await until('charon to forget the circuits closed', LIMIT, async () =>
      (await relay.telescopes()) < before ? true : undefined,
    )
    return `${before} telescopes at charon, then ${await relay.telescopes()}`
  })
  await cell('a telescope', 'charon deletes a hop: the client notices and builds another', async () => {
    const gone = await stage.circuit()
    await relay.charon.swanctl('--terminate', '--ike', 'telescope')
    return await stage.carries(await stage.circuit(gone), 'cedar', LAST)
  })
}

async function move({ cell }: Cells, stage: Stage, relay: Relay): Promise<void> {
  await cell('a telescope', 'charon as entry', async () => {
    await stage.restartClient(['cedar', 'alder', 'birch'], FIRST)
    return await stage.carries(await stage.circuit(), 'birch', FIRST)
  })
  await cell('a telescope', 'MOBIKE: our client moves, charon as entry', async () => {
    const circuit = await stage.circuit()
    const { address } = stage.host('client')
    const elsewhere = address.replace(/1$/, '77')
    for (const [from, to] of [
      [address, elsewhere],
      [elsewhere, address],
    ] as const) {
      await stage.relocate(stage.host('client'), from, to)
      await until('charon to follow', LIMIT, async () =>
        (await relay.charon.sas()).includes(`${to}[4500]`) ? true : undefined,
      )
      assert.equal((await stage.circuit()).id, circuit.id, 'the same circuit')
      await stage.carries(circuit, 'birch', FIRST)
    }
    return `to ${elsewhere} and back: the same circuit carries page and file`
  })
}
