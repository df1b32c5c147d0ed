import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Entrance, type Waiting } from '#telescope/entrance'
import { segment } from './segments.ts'

interface Packet extends Waiting {
  readonly bytes: Uint8Array
  readonly name: string
}

const ONE = {}
const OTHER = {}

const packet = (port: number, length: number, name = `${port}`, protocol = 17): Packet => ({
  bytes: segment({ from: '198.51.100.1', to: '10.64.0.2', ports: [port, 9], payload: length - 40, protocol }),
  name,
  octets: 0,
  arrived: 0,
  behind: undefined,
})

const push = (entrance: Entrance<Packet>, circuit: object, p: Packet, now = 0) =>
  entrance.push(circuit, p, p.bytes.length, p.bytes, 0, now)

/** Takes whole packets as long as there are any. */
function drain(entrance: Entrance<Packet>, now = 0): string[] {
  const names: string[] = []
  for (let next = entrance.next(now); next !== undefined; next = entrance.next(now)) {
    names.push(next.name)
    entrance.sent(next.bytes, 0, now)
    entrance.took(0)
  }
  return names
}

test('a flow that begins goes before those that queue', () => {
  const entrance = new Entrance<Packet>(1)
  for (let i = 0; i < 10; i++) push(entrance, ONE, packet(1, 1200))
  for (let i = 0; i < 3; i++) {
    entrance.next(0)
    entrance.took(0)
  }
  push(entrance, ONE, packet(2, 1000))
  assert.equal(drain(entrance)[0], '2')
  assert.ok(entrance.isEmpty)
})

test('flows of a circuit get the same octets, and circuits do, however many flows they have', () => {
  const entrance = new Entrance<Packet>(1)
  for (let i = 0; i < 400; i++) {
    push(entrance, ONE, packet(1, 1200, 'large'))
    for (let j = 0; j < 4; j++) push(entrance, ONE, packet(2, 300, 'small'))
    for (let port = 0; port < 5; port++) push(entrance, OTHER, packet(port, 1200, 'other'))
  }
  const octets: Record<string, number> = { large: 0, small: 0, other: 0 }
  for (let i = 0; i < 1000; i++) {
    const next = entrance.next(0)!
    octets[next.name]! += next.octets
    entrance.took(0)
  }
  const { large = 0, small = 0, other = 0 } = octets
  assert.ok(Math.abs(large / small - 1) < 0.1, `${large} against ${small}`)
  assert.ok(Math.abs((large + small) / other - 1) < 0.1, `${large + small} against ${other}`)
})

test('flows that queue have turns of an eighth of the window', () => {
  const entrance = new Entrance<Packet>(1)
  for (let i = 0; i < 40; i++) for (const port of [1, 2]) push(entrance, ONE, packet(port, 1280))
  // A window of twenty packets: two or three a turn, after a first one each.
  const runs = drain(entrance).join('').match(/1+|2+/g)!
  assert.equal(
    runs.map(({ length }) => length).reduce((sum, length) => sum + length),
    80,
  )
  for (const run of runs.slice(2, -2)) assert.match(run, /^(..|...)$/)
})

test('a long packet goes in pieces, with others in between', () => {
  const entrance = new Entrance<Packet>(1)
  push(entrance, ONE, packet(1, 40_000, 'long'))
  for (let i = 0; i < 4; i++) push(entrance, ONE, packet(2, 1200, 'short'))
  const order: string[] = []
  for (let i = 0; i < 8; i++) {
    const next = entrance.next(0)!
    order.push(next.name)
    entrance.took(Math.max(0, next.octets - 1240))
  }
  assert.equal(order.filter((name) => name === 'short').length, 4, order.join(' '))
})

test('a full window holds back what queues, and lets a first packet pass', () => {
  const entrance = new Entrance<Packet>(1)
  for (let i = 0; i < 100; i++) push(entrance, ONE, packet(1, 1280, 'bulk', 6))
  const first = drain(entrance)
  assert.ok(first.length > 10 && first.length < 40, `${first.length}`)
  push(entrance, ONE, packet(2, 1000, 'echo', 6))
  push(entrance, OTHER, packet(3, 1000, 'other', 6))
  assert.deepEqual(drain(entrance).sort(), ['echo', 'other'])
  assert.ok(entrance.deadline < 1000)
  const answer = { from: '10.64.0.2', to: '198.51.100.1', acknowledgment: 1240 }
  entrance.hear(segment({ ...answer, ports: [9, 7] }), 0, 1)
  assert.deepEqual(drain(entrance, 1), [])
  entrance.hear(segment({ ...answer, ports: [9, 1] }), 0, 1)
  assert.ok(drain(entrance, 1).length > 0)
})

test('a flow that has stood for long is late, a sparse one is not', () => {
  const entrance = new Entrance<Packet>(1)
  let late = 0
  for (let now = 0; now < 1000; now++) {
    for (let i = 0; i < 2; i++) push(entrance, ONE, packet(1, 1200), now)
    push(entrance, ONE, packet(2, 100, 'sparse'), now)
    for (let i = 0; i < 2; i++) {
      const next = entrance.next(now)!
      if (entrance.isLate(now)) {
        late++
        assert.equal(next.name, '1')
      }
      entrance.took(0)
    }
  }
  assert.ok(late > 5, `${late}`)
})

test('whatever is pushed comes out once, flows in order; the fattest flow is evicted', () => {
  const operation = fc.oneof(
    fc.record({ circuit: fc.nat(2), port: fc.nat(3), length: fc.integer({ min: 40, max: 3000 }) }),
    fc.constant('next' as const),
    fc.constant('evict' as const),
  )
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 300 }), fc.integer(), (operations, seed) => {
      const circuits = [{}, {}, {}]
      const entrance = new Entrance<Packet>(seed)
      const waiting = new Map<string, string[]>()
      let pushed = 0
      const gone = ({ name }: Packet) => {
        const flow = name.slice(0, name.lastIndexOf(' '))
        assert.equal(waiting.get(flow)!.shift(), name)
      }
      for (const o of operations) {
        if (o === 'next') {
          const next = entrance.next(0)
          assert.equal(next === undefined, entrance.isEmpty)
          if (next === undefined) continue
          entrance.took(0)
          gone(next)
        } else if (o === 'evict') {
          const evicted = entrance.evict()
          if (evicted !== undefined) gone(evicted)
        } else {
          const flow = `${o.circuit} ${o.port}`
          const name = `${flow} ${pushed++}`
          waiting.set(flow, [...(waiting.get(flow) ?? []), name])
          push(entrance, circuits[o.circuit]!, packet(o.port, o.length, name))
        }
      }
      for (let next = entrance.next(0); next !== undefined; next = entrance.next(0)) {
        entrance.took(0)
        gone(next)
      }
      assert.ok([...waiting.values()].every((names) => names.length === 0))
    }),
  )
})
