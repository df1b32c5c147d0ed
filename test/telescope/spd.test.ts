import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Ip, Prefix } from '#base/ip'
import { host, ipToUint32, maskOf, prefix, uint32ToIp } from '#base/ip'
import { NodeCipherDriver } from '#linux/ciphers'
import type { PolicySpec, Selector } from '#telescope/plane'
import { reqId } from '#telescope/plane'
import { Sad } from '#telescope/sad'
import { type Flow, NO_PORT, PolicyTable, Spd } from '#telescope/spd'
import { LinearSpd } from '../twins/linear-spd.ts'

/** Few values, so that policies overlap and packets hit them. */
const addresses = fc.constantFrom(
  '10.64.0.1',
  '10.64.0.2',
  '10.64.16.1',
  '10.65.0.1',
  '198.18.0.1',
  '203.0.113.9',
)
const prefixes: fc.Arbitrary<Prefix> = fc
  .tuple(addresses, fc.constantFrom(0, 8, 12, 20, 32))
  .map(([text, length]) => {
    const value = (ipToUint32(text as Ip) & maskOf(length)) >>> 0
    return { address: uint32ToIp(value), length }
  })
const ports = fc.constantFrom(53, 500, 4500)
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined, freq: 2 })

const policies: fc.Arbitrary<PolicySpec> = fc
  .record({
    source: prefixes,
    destination: prefixes,
    protocol: optional(fc.constantFrom(6, 17)),
    sourcePort: optional(ports),
    destinationPort: optional(ports),
    priority: fc.constantFrom(100, 500, 1000, 2000, 65000),
  })
  .map(({ priority, ...fields }) => {
    const defined = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
    return {
      direction: 'out',
      selector: defined as unknown as Selector,
      action: 'block',
      priority,
      templates: [],
    }
  })

const flows: fc.Arbitrary<Flow> = fc.record({
  source: addresses.map((text) => ipToUint32(text as Ip) | 0),
  destination: addresses.map((text) => ipToUint32(text as Ip) | 0),
  protocol: fc.constantFrom(6, 17, 50),
  sourcePort: fc.oneof(ports, fc.constant(NO_PORT)),
  destinationPort: fc.oneof(ports, fc.constant(NO_PORT)),
})

test('agrees with the linear twin under random installs and removals', () => {
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.tuple(fc.constant('install' as const), policies) },
    { weight: 1, arbitrary: fc.tuple(fc.constant('remove' as const), fc.nat()) },
    { weight: 4, arbitrary: fc.tuple(fc.constant('look' as const), flows) },
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const table = new PolicyTable()
      const twin = new LinearSpd()
      const installed: PolicySpec[] = []
      for (const [kind, value] of steps) {
        if (kind === 'install') {
          table.install(value, [])
          twin.install(value)
          installed.push(value)
        } else if (kind === 'remove') {
          const victim = installed[value % Math.max(1, installed.length)]
          if (victim === undefined) continue
          table.remove(victim.selector)
          twin.remove(victim)
        } else assert.equal(table.lookup(value)?.spec, twin.lookup(value))
      }
    }),
    { numRuns: 500 },
  )
})

test('a policy with ICMP type and code matches those only', () => {
  const table = new PolicyTable()
  const any = prefix('0.0.0.0/0')
  const selector = { source: any, destination: any, protocol: 1, icmp: { type: 3, code: 4 } }
  table.install({ direction: 'in', selector, action: 'bypass', priority: 1, templates: [] }, [])
  const flow = { source: 1, destination: 2, protocol: 1, sourcePort: 3, destinationPort: 4 }
  assert.ok(table.lookup(flow))
  assert.equal(table.lookup({ ...flow, destinationPort: 3 }), undefined)
  assert.equal(table.lookup({ ...flow, protocol: 17 }), undefined)
})

test('a policy says templates if and only if it protects, and at most five', () => {
  const spd = new Spd(new Sad(new NodeCipherDriver()))
  const selector = { source: prefix('0.0.0.0/0'), destination: host('10.0.0.1' as Ip) }
  const template = { source: '198.18.0.1' as Ip, destination: '198.18.0.2' as Ip, reqid: reqId(1) }
  const policy = (action: PolicySpec['action'], count: number): PolicySpec => ({
    direction: 'out',
    selector,
    action,
    priority: 1,
    templates: Array(count).fill(template),
  })
  for (const [action, count] of [
    ['protect', 0],
    ['protect', 6],
    ['block', 1],
    ['bypass', 1],
  ] as const)
    assert.throws(() => spd.install(policy(action, count)), RangeError)
  assert.equal(spd.install(policy('protect', 5)), undefined)
  assert.equal(spd.install(policy('block', 0))?.templates.length, 5)
})

test('a look-up costs the same among ten thousand circuits', (t) => {
  const time = (circuits: number): number => {
    const table = new PolicyTable()
    for (let i = 0; i < circuits; i++) {
      const selector = { source: prefix('0.0.0.0/0'), destination: host(uint32ToIp(0x0a400000 + i)) }
      table.install({ direction: 'out', selector, action: 'block', priority: 1000, templates: [] }, [])
    }
    const flow = { source: 1, destination: 0x0a400000, protocol: 17, sourcePort: 1, destinationPort: 2 }
    const run = (rounds: number): number => {
      const start = process.hrtime.bigint()
      for (let i = 0; i < rounds; i++) {
        flow.destination = 0x0a400000 + ((i * 7919) % circuits)
        assert.ok(table.lookup(flow) !== undefined)
      }
      return Number(process.hrtime.bigint() - start) / rounds
    }
    run(20_000)
    return Math.min(run(20_000), run(20_000), run(20_000))
  }
  const few = time(10)
  const many = time(10_000)
  t.diagnostic(`ns per look-up: ${few.toFixed(0)} among 10, ${many.toFixed(0)} among 10,000`)
  // Caches make some difference; a linear search would make one of a thousand.
  assert.ok(many < few * 100)
})
