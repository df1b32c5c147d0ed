/** The driver with a machine that only notes what it is told. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { instant } from '#base/time'
import { Driver, type DriverPorts } from '#daemon/driver'

type Input = { readonly kind: 'datagram' | 'stop'; readonly number?: number }

function drive() {
  const seen: string[] = []
  let due = false
  const machine = {
    handle: ({ kind, number }: { kind: string; number?: number }) =>
      void seen.push(number === undefined ? kind : `${kind} ${number}`),
    tick: () => {
      if (due) seen.push('tick')
      due = false
    },
    poll: () => undefined,
    nextTimeout: () => (due ? instant(0) : undefined),
  }
  const driver = new Driver<Input, never>(machine, {} as DriverPorts<never>)
  return { driver, seen, makeDue: () => (due = true) }
}

test('a flood of datagrams is bounded; what the daemon itself wants is neither dropped nor kept waiting', async () => {
  const { driver, seen } = drive()
  for (let number = 0; number < 10_000; number++) driver.input({ kind: 'datagram', number })
  driver.input({ kind: 'stop' })
  await driver.idle()
  // The first one was taken at once, before anything else was there.
  assert.deepEqual(seen.slice(0, 3), ['datagram 0', 'stop', 'datagram 1'])
  assert.equal(seen.length, 4096 + 2)
})

test('a timer that is due goes ahead of what waits', async () => {
  const { driver, seen, makeDue } = drive()
  for (let number = 0; number < 3; number++) driver.input({ kind: 'datagram', number })
  makeDue()
  await driver.idle()
  assert.deepEqual(seen.slice(0, 2), ['datagram 0', 'tick'])
})

test('nothing is taken after the end', async () => {
  const { driver, seen } = drive()
  await driver.end()
  driver.input({ kind: 'stop' })
  await driver.idle()
  assert.deepEqual(seen, [])
})
