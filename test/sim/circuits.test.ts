/**
 * A hundred circuits of two clients that have nothing in common but this program: what the nodes behind the entry
 * read of them differs in random fields alone. The tests are named by the rows of the table of identifiers that can
 * leak a client (threats, section 2), and each fails for a client that leaks just that.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { concat, toHex } from '#base/bytes'
import { contains, type Ip, ip, ipToBytes } from '#base/ip'
import { MINUTE, SECOND } from '#base/time'
import { nobleCrypto } from '#crypto/noble'
import { nodeCrypto } from '#crypto/node'
import type { CryptoProvider } from '#crypto/provider'
import { notify, type Payload } from '#ikev2/message/payload'
import { AUTH_METHOD, ID_TYPE, NOTIFY } from '#ikev2/numbers'
import { addressText, destination, PROTOCOL, protocol, source } from '#wire/ipv4'
import { type Heard, octetsOf, randomOf, type Told, tell } from './evidence.ts'
import { POOL_SPACE, type SimClient, SimOverlay } from './overlay.ts'

const NAMES = ['alder', 'birch', 'cedar']
const CIRCUITS = 50
const ADDRESSES = [ip('198.18.1.1'), ip('203.0.113.77')] as const
const { number: N } = NOTIFY

interface Evidence {
  readonly messages: readonly Told[]
  /** Of the clients, while they built: whom they talked to. */
  readonly talked: readonly { readonly from: Ip; readonly to: Ip; readonly protocol: number }[]
  /** Circuits that were open at the end, by client. */
  readonly open: readonly number[]
  /** ESP SPIs that the clients chose, by hop. */
  readonly espSpis: readonly (readonly number[])[]
}

/** What happens when both clients build that many circuits each, a few at a time: nobody is asked for a cookie. */
function gather(count: number, second: Partial<Parameters<SimOverlay['addClient']>[0]> = {}): Evidence {
  const heard: Heard[] = []
  const talked: { from: Ip; to: Ip; protocol: number }[] = []
  const world = new SimOverlay(NAMES, {
    seed: 11,
    path: NAMES,
    taps: {
      keyLog: true,
      heard: (at, path, bytes) => heard.push({ at, path, bytes: bytes.slice() }),
      packet(packet) {
        const from = addressText(source(packet, 0))
        const to = addressText(destination(packet, 0))
        if (ADDRESSES.some((address) => address === from))
          talked.push({ from, to, protocol: protocol(packet, 0) })
      },
    },
  })
  // Another address, a clock that shows another year, another build: its cryptography is written in JavaScript.
  world.addClient({
    address: ADDRESSES[1],
    path: NAMES,
    crypto: nobleCrypto,
    skew: 31_556_952_000,
    ...second,
  })
  assert.ok(world.raise())
  const opened = (): number[] =>
    world.clients.map(
      ({ machine }) => machine.circuits.filter(({ telescope }) => telescope.state === 'open').length,
    )
  for (const client of world.clients) {
    client.input({ kind: 'start' })
    client.input({ kind: 'consensus', consensus: world.consensus })
  }
  for (let wanted = 1; wanted <= count; wanted++) {
    const all = (): boolean => opened().every((each) => each === wanted)
    assert.ok(world.runUntil(all, MINUTE), `${opened()} of ${wanted}`)
    if (wanted === count) break
    for (const client of world.clients) client.input({ kind: 'build', ticket: wanted, path: NAMES })
  }
  const before = talked.length
  const open = opened()
  const espSpis = [0, 1, 2].map((hop) =>
    world.clients.flatMap(({ machine }) => machine.circuits.map(({ telescope }) => spiOf(telescope, hop))),
  )
  for (const client of world.clients) client.input({ kind: 'stop' })
  world.run(5 * SECOND)
  const messages = tell(
    heard,
    world.clients,
    NAMES.map((name) => world.routers.get(name)!.address),
  )
  return { messages, talked: talked.slice(0, before), open, espSpis }
}

const spiOf = (telescope: SimClient['machine']['circuits'][number]['telescope'], hop: number): number =>
  telescope.layers[hop]!.child.inboundSpi

// ---------------------------------------------------------------------------------------------- what must hold

const payloadsOf = <K extends Payload['kind']>(
  { messages }: Evidence,
  kind: K,
  who: (told: Told) => boolean = ({ isRequest }) => isRequest,
): Extract<Payload, { kind: K }>[] =>
  messages
    .filter(who)
    .flatMap(({ payloads }) => payloads)
    .filter((payload): payload is Extract<Payload, { kind: K }> => payload.kind === kind)

const notifies = (evidence: Evidence): number[] => payloadsOf(evidence, 'Notify').map(({ type }) => type)
const noNotify = (evidence: Evidence, from: number, to: number): void => {
  const found = notifies(evidence).filter((type) => type >= from && type <= to)
  assert.deepEqual(found, [])
}
const assertDistinct = (what: string, values: readonly string[]): void => {
  assert.ok(values.length > 0, what)
  assert.equal(new Set(values).size, values.length, `${what}: a value came twice`)
}
const assertOne = (what: string, values: readonly string[]): void => {
  assert.equal(new Set(values).size, 1, `${what}: ${[...new Set(values)].slice(0, 3).join(' | ')}`)
}

/** By hop and title: every circuit's message. */
function templates({ messages }: Evidence): Map<string, Told[]> {
  const groups = new Map<string, Told[]>()
  for (const told of messages) {
    const name = `hop ${told.hop}: ${told.title}`
    groups.set(name, [...(groups.get(name) ?? []), told])
  }
  return groups
}

/** Lengths and all octets that are not random are those of everybody; and what is random, is. */
function assertOneTemplate(evidence: Evidence): void {
  for (const [name, group] of templates(evidence)) {
    assert.equal(group.length, 2 * evidence.open[0]!, `${name}: one of every circuit`)
    assertOne(
      `${name}: lengths`,
      group.map(({ lengths }) => lengths.join()),
    )
    const masks = group.map((told) => toHex(randomOf(told)))
    assertOne(`${name}: random fields`, masks)
    const mask = randomOf(group[0]!)
    const fixed = (told: Told): string => toHex(octetsOf(told).map((octet, i) => (mask[i] === 1 ? 0 : octet)))
    assertOne(`${name}: fixed octets`, group.map(fixed))
    assert.deepEqual(
      constants(group, 0, mask),
      constants(group, 1, mask),
      `${name}: constants of each client`,
    )
  }
}

/** Random fields whose value is the same in every circuit of a client: of a lent address some, of others none. */
function constants(group: readonly Told[], client: number, mask: Uint8Array): string[] {
  const mine = group.filter((told) => told.client === client).map(octetsOf)
  return [...mask.keys()].flatMap((i) =>
    mask[i] === 1 && mine.every((octets) => octets[i] === mine[0]![i]) ? [`${i}: ${mine[0]![i]}`] : [],
  )
}

/** SHA-1 over SPIs, address and port (RFC 7296 section 2.23). */
function natHash({ header }: Told, address: Ip, port: number): Uint8Array {
  const endpoint = concat(ipToBytes(address), Uint8Array.of(port >>> 8, port & 255))
  return createHash('sha1').update(header.subarray(0, 16)).update(endpoint).digest()
}

interface Row {
  readonly name: string
  readonly check: (evidence: Evidence) => void
  /** The same evidence of a client that leaks just this. */
  readonly leak: (evidence: Evidence) => Evidence
}

/** The second client's requests of an exchange, changed. */
const altered =
  (exchange: string, alter: (payloads: readonly Payload[], told: Told) => readonly Payload[]) =>
  (evidence: Evidence): Evidence => ({
    ...evidence,
    messages: evidence.messages.map((told) =>
      told.client === 1 && told.isRequest && told.title.startsWith(exchange)
        ? { ...told, payloads: alter(told.payloads, told) }
        : told,
    ),
  })
const added = (exchange: string, ...more: Payload[]): Row['leak'] =>
  altered(exchange, (payloads) => [...payloads, ...more])

const ROWS: readonly Row[] = [
  {
    name: 'row 1: no ADDITIONAL_ADDRESS, no MOBIKE_SUPPORTED',
    check: (evidence) => noNotify(evidence, 16396, 16402),
    leak: added('IKE_AUTH', notify(16397, ipToBytes(ADDRESSES[1]))),
  },
  {
    name: 'row 2: no NAT detection, and no hash of a real address anywhere',
    check(evidence) {
      noNotify(evidence, N.NAT_DETECTION_SOURCE_IP, N.NAT_DETECTION_DESTINATION_IP)
      for (const told of evidence.messages) {
        const text = toHex(octetsOf(told))
        for (const address of ADDRESSES)
          for (const secret of [
            natHash(told, address, 500),
            natHash(told, address, 4500),
            ipToBytes(address),
          ])
            assert.ok(!text.includes(toHex(secret)), `${told.title} holds a hash of ${address}, or itself`)
      }
    },
    leak: altered('IKE_SA_INIT', (payloads, told) => [
      ...payloads,
      { kind: 'Vendor', data: natHash(told, ADDRESSES[1], 500) },
    ]),
  },
  {
    name: 'row 3: port 500 on both sides, and no UDP encapsulation',
    check({ messages }) {
      for (const { path } of messages) assert.deepEqual([path.local.port, path.remote.port], [500, 500])
    },
    leak: (evidence) => ({
      ...evidence,
      messages: evidence.messages.map((told) =>
        told.client === 1
          ? { ...told, path: { ...told.path, remote: { ...told.path.remote, port: 4500 } } }
          : told,
      ),
    }),
  },
  {
    name: "row 4: the identity is everybody's: ID_NULL without data",
    check(evidence) {
      const ids = payloadsOf(evidence, 'IDi' as 'IDi' | 'IDr')
      assert.equal(ids.filter(({ kind }) => kind === 'IDi').length, 2 * 2 * CIRCUITS)
      for (const { id } of ids) assert.deepEqual([id.type, id.data.length], [ID_TYPE.number.NULL, 0])
    },
    leak: altered('IKE_AUTH', (payloads) =>
      payloads.map((each) =>
        each.kind === 'IDi' ? { ...each, id: { type: 2, data: Uint8Array.of(97) } } : each,
      ),
    ),
  },
  {
    name: 'row 5: NULL authentication, and nothing that a client chose comes twice',
    check(evidence) {
      for (const { method } of payloadsOf(evidence, 'AUTH')) assert.equal(method, AUTH_METHOD.number.NULL)
      for (const kind of ['Nonce', 'KE', 'AUTH'] as const)
        assertDistinct(
          kind,
          payloadsOf(evidence, kind).map(({ data }) => toHex(data)),
        )
      const begun = evidence.messages.filter(({ title }) => title === 'IKE_SA_INIT request 0')
      assertDistinct(
        'IKE SPI',
        begun.map(({ spis }) => spis.slice(0, 16)),
      )
    },
    leak: altered('IKE_SA_INIT', (payloads) =>
      payloads.map((each) => (each.kind === 'KE' ? { ...each, data: new Uint8Array(32).fill(9) } : each)),
    ),
  },
  {
    name: 'row 6: no CERTREQ and no CERT',
    check(evidence) {
      assert.deepEqual(
        [...payloadsOf(evidence, 'CERTREQ' as never), ...payloadsOf(evidence, 'CERT' as never)],
        [],
      )
    },
    leak: added('IKE_AUTH', { kind: 'CERTREQ', encoding: 4, data: new Uint8Array(20) }),
  },
  {
    name: 'row 7: while it builds a client talks to its entry and to nobody else',
    check({ talked, messages }) {
      assert.ok(talked.length > messages.length / 4)
      assertOne(
        'destinations',
        talked.map(({ to }) => to),
      )
      const unusual = talked.filter(
        (each) => each.protocol !== PROTOCOL.esp && each.protocol !== PROTOCOL.udp,
      )
      assert.deepEqual(unusual, [])
    },
    leak: (evidence) => ({
      ...evidence,
      talked: [...evidence.talked, { from: ADDRESSES[1], to: ip('198.18.99.1'), protocol: PROTOCOL.tcp }],
    }),
  },
  {
    name: 'row 8: one template: lengths and every octet that is not random are the same in all circuits',
    check: assertOneTemplate,
    leak: added('IKE_SA_INIT', { kind: 'Vendor', data: Uint8Array.of(1, 2, 3) }),
  },
  {
    name: 'row 13: no INITIAL_CONTACT, and the circuits of both clients stay open beside each other',
    check(evidence) {
      noNotify(evidence, N.INITIAL_CONTACT, N.INITIAL_CONTACT)
      assert.deepEqual(evidence.open, [CIRCUITS, CIRCUITS])
    },
    leak: added('IKE_AUTH', notify(N.INITIAL_CONTACT)),
  },
  {
    name: 'row 14: SPIs are of the whole range, and none is seen at two hops',
    check({ espSpis, messages }) {
      assertDistinct('ESP SPI', espSpis.flat().map(String))
      const bySpis = new Map(messages.map(({ spis, hop }) => [spis.slice(0, 16), hop]))
      for (const { spis, hop } of messages) assert.equal(bySpis.get(spis.slice(0, 16)), hop)
      const all = [
        ...espSpis.flat().map((spi) => spi >>> 28),
        ...[...bySpis.keys()].map((spi) => Number.parseInt(spi[0]!, 16)),
      ]
      const expected = all.length / 16
      const chi2 = Array.from({ length: 16 }, (_, nibble) => all.filter((each) => each === nibble).length)
        .map((count) => (count - expected) ** 2 / expected)
        .reduce((a, b) => a + b)
      // 15 degrees of freedom: exceeded once in 10^7 runs.
      assert.ok(chi2 < 62, `chi2 = ${chi2}`)
    },
    leak: (evidence) => ({
      ...evidence,
      espSpis: evidence.espSpis.map((spis) => spis.map((spi) => (0xc000_0000 | (spi >>> 4)) >>> 0)),
    }),
  },
  {
    name: 'row 16: every circuit of a node has an address of its own',
    check({ messages }) {
      const begun = messages.filter(({ title }) => title === 'IKE_SA_INIT request 0')
      assert.equal(begun.length, 2 * 2 * CIRCUITS)
      assertDistinct(
        'source',
        begun.map(({ path }) => path.remote.address),
      )
      for (const { path } of begun) assert.ok(contains(POOL_SPACE, path.remote.address))
    },
    leak: (evidence) => ({
      ...evidence,
      messages: evidence.messages.map((told) => ({
        ...told,
        path: { ...told.path, remote: { ...told.path.remote, address: ip('10.64.0.9') } },
      })),
    }),
  },
]

const evidence = gather(CIRCUITS)

for (const { name, check, leak } of ROWS) {
  test(name, () => check(evidence))
  test(`${name.split(':')[0]} is broken by a client that leaks it`, () => {
    assert.throws(() => check(leak(evidence)))
  })
}

test('a client whose nonces carry a mark is told from others by the template', () => {
  const marked: CryptoProvider = {
    ...nodeCrypto,
    random(length) {
      const octets = nodeCrypto.random(length)
      return length === 32 ? octets.with(7, 0x2a) : octets
    },
  }
  assert.throws(() => assertOneTemplate(gather(8, { crypto: marked })), /constants of each client/)
})

/**
 * Within the life of an SA the counters of two layers do run side by side: no dummies are sent yet. What undoes the
 * likeness is that each layer starts anew at moments of its own.
 */
test('row 15: sequence numbers at entry and exit do not follow each other over the lives of their SAs', () => {
  const lifetimes = { child: 20 * SECOND, ike: 10 * MINUTE }
  const world = new SimOverlay(NAMES, { seed: 12, path: NAMES, lifetimes })
  assert.ok(world.raise())
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  assert.ok(world.runUntil(() => world.client.machine.state === 'ready', MINUTE))
  const { telescope } = world.client.machine.circuits[0]!
  const [address] = telescope.privateAddresses.slice(-1)
  const samples: [entry: number, exit: number][] = []
  const alike: [entry: number, exit: number][] = []
  for (let i = 0; i < 3000; i++) {
    world.client.say(address!, ip('198.18.40.1'), 7007, 'x')
    world.run(SECOND / 5)
    const [entry, exit] = [0, 2].map((hop) => {
      const { outboundSpi } = telescope.layers[hop]!.child
      return world.client.engine.counters().find(({ spi }) => spi === outboundSpi)!.packets
    })
    samples.push([entry!, exit!])
    alike.push([entry!, entry! + 2])
  }
  assert.ok(correlation(alike) > 0.99, 'the measure can tell')
  const r = correlation(samples)
  assert.ok(Math.abs(r) < 0.3, `r = ${r}`)
})

/** Pearson's. */
function correlation(pairs: readonly (readonly [number, number])[]): number {
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length
  const [x, y] = [mean(pairs.map(([a]) => a)), mean(pairs.map(([, b]) => b))]
  const covariance = mean(pairs.map(([a, b]) => (a - x) * (b - y)))
  return (
    covariance / Math.sqrt(mean(pairs.map(([a]) => (a - x) ** 2)) * mean(pairs.map(([, b]) => (b - y) ** 2)))
  )
}
