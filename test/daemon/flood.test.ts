/** Real daemons under a flood of spoofed IKE_SA_INIT: the short form of `npm run bench -- flood`, without its times. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Commands } from '#demo/command'
import { FloodScene } from '../../bench/flood/scene.ts'
import { unavailable } from './lab.ts'

const RATE = 1000
const reason = unavailable()

test('a flooded entry goes on: a download, renewals, and a newcomer', {
  timeout: 180_000,
  ...(reason === undefined ? {} : { skip: reason }),
}, async () => {
  const scene = new FloodScene(new Commands(new AbortController().signal), `ippf${process.pid}`)
  try {
    await scene.raise()
    const { mbps, rekeyMs, renewals, cookies, halfOpen, buildMs, sent } = await scene.phase(2000, {
      rate: RATE,
    })
    assert.ok(mbps > 0, 'the download goes on')
    assert.ok(
      renewals.some(({ name }) => name === 'CREATE_CHILD_SA'),
      'keys are renewed',
    )
    assert.ok(rekeyMs > 0, 'so are those of the circuit in use')
    assert.ok(buildMs! > 0, 'a newcomer gets its circuit')
    assert.ok(sent! > RATE, `${sent} spoofed requests`)
    assert.ok(cookies > RATE, `${cookies} cookies`)
    assert.ok(halfOpen <= 40, `${halfOpen} half-open IKE SAs`)
  } finally {
    await scene.fell()
  }
})
