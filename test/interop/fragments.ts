/** Cells: charon cuts its messages into small pieces (RFC 7383). That ours are put together, the hybrid cells show. */
import assert from 'node:assert/strict'
import type { Cells } from './cell.ts'
import { stockClient } from './clients.ts'
import type { Relay } from './relay.ts'
import { SUITES } from './routers.ts'
import type { Stage } from './stage.ts'

/** Octets of an IP packet. */
const SIZE = 'fragment_size = 200'
const CIPHER = 'aes-256-gcm-16'

export async function playFragments({ cell }: Cells, stage: Stage, relay: Relay): Promise<void> {
  await cell('c fragments', 'charon answers our node in pieces', async () => {
    await relay.run(stage.charon('cedar', 'fragments'), undefined, SIZE)
    await relay.tunnelUp('alder')
    await relay.tunnelUp('birch')
    return pieces(await relay.charon.logFrom(0))
  })
  await cell('a fragments', 'charon as exit answers our client in pieces', async () => {
    const mark = await relay.charon.logLength()
    await stage.restartClient(['alder', 'birch', 'cedar'], CIPHER)
    const told = await stage.carries(await stage.circuit(), 'cedar', CIPHER)
    return `${pieces(await relay.charon.logFrom(mark))}; ${told}`
  })
  await cell('b fragments', 'charon asks our node in pieces', () =>
    stockClient(stage, stage.charon('plain', 'fragments'), SUITES[CIPHER], {
      options: SIZE,
      meanwhile: async (charon) => pieces(await charon.logFrom(0)),
    }),
  )
}

function pieces(log: string): string {
  const cut = log.match(/splitting IKE message \(\d+ bytes\) into \d+ fragments/g) ?? []
  assert.ok(cut.length > 0, 'it cut nothing')
  return [...new Set(cut)].join(', ')
}
