import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { contains, type Ip, ip, ipToUint32, prefix, uint32ToIp } from '#base/ip'
import type { Result } from '#base/result'
import type { Rng } from '#base/rng'
import type { Consensus, ConsensusNode } from '#directory/documents'
import { DEFAULT_EXIT_POLICY, exitAllows, parseExitPolicy } from '#nat/exit-policy'
import { choosePath as chooseFrom, type PathConstraints, parseDestination, rolesAt } from '#overlay/path'
import { BIT, carriedBy, MASKS, type Place, shareBandwidth } from '#overlay/position-weights'
import { Roster, UNMEASURED } from '#overlay/roster'
import { seededRng } from '../sim/random.ts'
import { ALL, family, generated, network, node, roster } from './nodes.ts'

const choosePath = (consensus: Consensus, constraints: PathConstraints, rng: Rng) =>
  chooseFrom(new Roster(consensus), constraints, rng)

const seeded = seededRng

const names = (result: Result<ConsensusNode[]>): string[] => {
  assert.ok(result.ok, result.ok ? '' : result.where)
  return result.value.map((n) => n.name)
}
const slash16 = (address: Ip) => ipToUint32(address) >>> 16

function refused(result: Result<unknown>, code: string, where: RegExp): void {
  assert.ok(!result.ok, 'it was not refused')
  assert.equal(result.code, code)
  assert.match(result.where, where)
}

test('three hops unless said otherwise, each node once, each role respected', () => {
  const nodes = [
    node(1, { roles: ['entry'] }),
    node(2, { roles: ['middle'] }),
    node(3, { roles: ['exit'] }),
    node(4, { roles: ['middle'] }),
  ]
  for (let seed = 0; seed < 50; seed++) {
    const [entry, middle, exit, ...rest] = names(choosePath(network(nodes), {}, seeded(seed)))
    assert.deepEqual([entry, exit, rest], ['n1', 'n3', []])
    assert.ok(middle === 'n2' || middle === 'n4')
  }
})

test('a choice never bars the way: the only possible path is always found', () => {
  // n1 is the only entry and an exit as well: as exit it would leave no entry.
  const two = [node(1), node(2, { roles: ['exit'] })]
  // n2 is the only one that may stand in the middle.
  const three = [node(1), node(2), node(3, { roles: ['entry', 'exit'] })]
  three[0] = node(1, { roles: ['entry', 'exit'] })
  for (let seed = 0; seed < 100; seed++) {
    assert.deepEqual(names(choosePath(network(two), { hops: 2 }, seeded(seed))), ['n1', 'n2'])
    assert.equal(names(choosePath(network(three), { hops: 3 }, seeded(seed)))[1], 'n2')
  }
})

test('one hop: entry and exit in one node', () => {
  const nodes = [
    node(1, { roles: ['entry'] }),
    node(2, { roles: ['exit'] }),
    node(3, { roles: ['entry', 'exit'] }),
  ]
  for (let seed = 0; seed < 20; seed++)
    assert.deepEqual(names(choosePath(network(nodes), { hops: 1 }, seeded(seed))), ['n3'])
  refused(choosePath(network(nodes.slice(0, 2)), { hops: 1 }, seeded(1)), 'IPP_PATH_NONE', /entry and exit/)
  refused(
    choosePath(network(nodes), { path: ['n2'] }, seeded(1)),
    'IPP_PATH_NONE',
    /n2 does not serve as entry/,
  )
})

test('hops out of range, empty and too small networks', () => {
  const five = network([1, 2, 3, 4, 5].map((i) => node(i)))
  for (const hops of [0, 6, 2.5, Number.NaN])
    refused(choosePath(five, { hops }, seeded(1)), 'IPP_PATH_NONE', /1 to 5 hops/)
  assert.equal(new Set(names(choosePath(five, { hops: 5 }, seeded(1)))).size, 5)
  refused(choosePath(network([]), {}, seeded(1)), 'IPP_PATH_NONE', /0 nodes listed/)
  refused(choosePath(network(five.nodes.slice(0, 4)), { hops: 5 }, seeded(1)), 'IPP_PATH_NONE', /5 hops/)
})

test('one /16 is one neighbourhood, unless that is allowed', () => {
  const close = network([1, 2, 3, 4].map((i) => node(i, { address: ip(`198.18.${i}.1`) })))
  refused(choosePath(close, {}, seeded(1)), 'IPP_PATH_NONE', /different \/16/)
  assert.equal(names(choosePath(close, { sameNetwork: true }, seeded(1))).length, 3)
  assert.equal(names(choosePath(close, { hops: 1 }, seeded(1))).length, 1)
  refused(
    choosePath(close, { path: ['n1', 'n2', 'n3'] }, seeded(1)),
    'IPP_PATH_NONE',
    /n1 and n2 are in one \/16/,
  )
  const pinned = { path: ['n1', 'n2', 'n3'], sameNetwork: true }
  assert.deepEqual(names(choosePath(close, pinned, seeded(1))), ['n1', 'n2', 'n3'])
})

test('pinned: whole paths and ends, by name or node id', () => {
  const nodes = [1, 2, 3, 4, 5].map((i) => node(i))
  const net = network(nodes)
  const choose = (constraints: PathConstraints) => choosePath(net, constraints, seeded(3))
  assert.deepEqual(names(choose({ path: ['n5', nodes[0]!.nodeId] })), ['n5', 'n1'])
  for (let seed = 0; seed < 50; seed++) {
    const path = names(choosePath(net, { entry: 'n2', exit: 'n4', hops: 5 }, seeded(seed)))
    assert.deepEqual([path[0], path[4], new Set(path).size], ['n2', 'n4', 5])
  }
  refused(choose({ path: ['n1', 'n9', 'n2'] }), 'IPP_PATH_UNKNOWN_NODE', /"n9" is not among the 5 nodes/)
  refused(choose({ exit: '' }), 'IPP_PATH_UNKNOWN_NODE', /""/)
  refused(choose({ path: ['n1', 'n1', 'n2'] }), 'IPP_PATH_NONE', /n1 stands twice/)
  refused(choose({ path: ['n1', 'n2'], hops: 3 }), 'IPP_PATH_NONE', /names 2 nodes, but 3 hops/)
  refused(choose({ path: [] }), 'IPP_PATH_NONE', /1 to 5 hops/)
  refused(
    choose({ path: ['n1', 'n2', 'n3'], exit: 'n4' }),
    'IPP_PATH_NONE',
    /n3 and n4 are both wanted at hop 3/,
  )
  refused(choose({ entry: 'n1', exclude: [nodes[0]!.nodeId] }), 'IPP_PATH_NONE', /n1 is excluded/)
  const mute = network([...nodes, node(6, { roles: ['middle'] })])
  refused(choosePath(mute, { exit: 'n6' }, seeded(1)), 'IPP_PATH_NONE', /n6 does not serve as exit/)
})

test('excluded nodes are never chosen', () => {
  const nodes = [1, 2, 3, 4].map((i) => node(i))
  for (let seed = 0; seed < 50; seed++)
    assert.ok(
      !names(choosePath(network(nodes), { exclude: [nodes[2]!.nodeId] }, seeded(seed))).includes('n3'),
    )
  const exclude = nodes.slice(0, 2).map((n) => n.nodeId)
  refused(
    choosePath(network(nodes), { exclude }, seeded(1)),
    'IPP_PATH_NONE',
    /4 nodes listed, 2 can be middle/,
  )
})

test('the exit is chosen by its policy for the destination', () => {
  const policy = (...lines: string[]) => {
    const parsed = parseExitPolicy(lines)
    assert.ok(parsed.ok)
    return parsed.value
  }
  const net = network([
    node(1, { exitPolicy: [] }),
    node(2, { exitPolicy: policy('accept 0.0.0.0/0 tcp 443') }),
    node(3, { exitPolicy: policy('reject 203.0.113.0/24', 'accept 0.0.0.0/0 tcp 80') }),
    node(4, { exitPolicy: policy('accept 0.0.0.0/0 icmp') }),
  ])
  const exitFor = (address: string, protocol: 'tcp' | 'udp' | 'icmp', port?: number) => {
    const destination = { address: ip(address), protocol, ...(port === undefined ? {} : { port }) }
    const found = new Set<string>()
    for (let seed = 0; seed < 30; seed++) {
      const path = choosePath(net, { destination }, seeded(seed))
      if (path.ok) found.add(path.value.at(-1)!.name)
    }
    return [...found].sort().join()
  }
  assert.equal(exitFor('192.0.2.1', 'tcp', 443), 'n2')
  assert.equal(exitFor('192.0.2.1', 'tcp', 80), 'n3')
  assert.equal(exitFor('203.0.113.1', 'tcp', 80), '')
  assert.equal(exitFor('203.0.113.1', 'icmp'), 'n4')
  assert.equal(exitFor('192.0.2.1', 'udp', 53), '')
  const destination = { address: ip('192.0.2.1'), protocol: 'udp' as const, port: 53 }
  refused(
    choosePath(net, { path: ['n1', 'n2', 'n3'], destination }, seeded(1)),
    'IPP_PATH_NONE',
    /the exit policy of n3 refuses the destination/,
  )
})

test('a destination reads as it is written', () => {
  assert.deepEqual(parseDestination('tcp:192.0.2.1:443'), {
    address: '192.0.2.1',
    protocol: 'tcp',
    port: 443,
  })
  assert.deepEqual(parseDestination('icmp:192.0.2.1'), { address: '192.0.2.1', protocol: 'icmp' })
  for (const bad of [
    '192.0.2.1',
    'tcp:192.0.2.1',
    'icmp:192.0.2.1:1',
    'udp:192.0.2.1:70000',
    'tcp:192.0.2.999:1',
    '',
  ])
    assert.equal(parseDestination(bad), undefined, bad)
})

const anyNetwork = fc
  .record({
    size: fc.integer({ min: 5, max: 500 }),
    networks: fc.integer({ min: 1, max: 400 }),
    seed: fc.nat(),
  })
  .map(({ size, networks, seed }) => {
    const rng = seeded(seed)
    return network(
      Array.from({ length: size }, (_, i) => {
        const [a, b, c] = rng.bytes(3)
        const roles = ALL.filter((_role, bit) => ((a! + 1) & (1 << bit)) !== 0)
        return node(i + 1, {
          address: uint32ToIp(0x6400_0000 + ((((b! << 8) | c!) % networks) << 16) + i + 1),
          roles: roles.length > 0 ? roles : ['middle'],
          exitPolicy: a! > 200 ? [] : DEFAULT_EXIT_POLICY,
        })
      }),
    )
  })

/** The slow obvious twin: is there any path at all? Tries one node per combination of /16 and roles. */
function pathExists(net: Consensus, constraints: PathConstraints, hops: number): boolean {
  const places = Array.from({ length: hops }, (_, i) => i)
  const usable = (n: ConsensusNode, place: number): boolean =>
    rolesAt(place, hops).every((role) => n.roles.includes(role)) &&
    !constraints.exclude?.includes(n.nodeId) &&
    (place !== hops - 1 ||
      constraints.destination === undefined ||
      exitAllows(n.exitPolicy, {
        destination: constraints.destination.address,
        protocol: constraints.destination.protocol,
        ...(constraints.destination.port === undefined ? {} : { port: constraints.destination.port }),
      }))
  const groups = new Map<string | number, Set<number>>()
  for (const n of net.nodes) {
    const key = constraints.sameNetwork === true ? n.nodeId : slash16(n.address)
    const set = groups.get(key) ?? new Set()
    groups.set(key, set)
    for (const place of places) if (usable(n, place)) set.add(place)
  }
  // Augmenting paths: places matched to groups.
  const owner = new Map<string | number, number>()
  const settle = (place: number, seen: Set<string | number>): boolean => {
    for (const [key, set] of groups) {
      if (!set.has(place) || seen.has(key)) continue
      seen.add(key)
      const other = owner.get(key)
      if (other === undefined || settle(other, seen)) {
        owner.set(key, place)
        return true
      }
    }
    return false
  }
  return places.every((place) => settle(place, new Set()))
}

test('generated networks of 5 to 500 nodes: a path is right whenever there is one, and found whenever there can be', () => {
  const outcomes = { found: 0, none: 0 }
  fc.assert(
    fc.property(
      anyNetwork,
      fc.integer({ min: 1, max: 5 }),
      fc.boolean(),
      fc.boolean(),
      fc.nat(),
      (net, hops, sameNetwork, toSomewhere, seed) => {
        const rng = seeded(seed)
        const exclude = net.nodes.filter(() => rng.bytes(1)[0]! < 80).map((n) => n.nodeId)
        const constraints: PathConstraints = {
          hops,
          sameNetwork,
          exclude,
          ...(toSomewhere ? { destination: { address: ip('192.0.2.1'), protocol: 'tcp', port: 80 } } : {}),
        }
        const chosen = choosePath(net, constraints, rng)
        assert.equal(chosen.ok, pathExists(net, constraints, hops))
        outcomes[chosen.ok ? 'found' : 'none']++
        if (!chosen.ok) return assert.equal(chosen.code, 'IPP_PATH_NONE')
        const path = chosen.value
        assert.equal(path.length, hops)
        assert.equal(new Set(path.map((n) => n.nodeId)).size, hops)
        if (!sameNetwork) assert.equal(new Set(path.map((n) => slash16(n.address))).size, hops)
        for (const [i, n] of path.entries()) {
          assert.ok(net.nodes.includes(n))
          assert.ok(!exclude.includes(n.nodeId))
          for (const role of rolesAt(i, hops)) assert.ok(n.roles.includes(role))
        }
        if (toSomewhere) assert.notDeepEqual(path.at(-1)!.exitPolicy, [])
      },
    ),
    { numRuns: 400 },
  )
  assert.ok(outcomes.found > 50 && outcomes.none > 10, JSON.stringify(outcomes))
})

test('two of one family never meet, and the user is told; networks and nodes are left out', () => {
  const nodes = [1, 2, 3, 4, 5, 6].map((i) => node(i, i <= 4 ? family(1) : {}))
  for (let seed = 0; seed < 50; seed++) {
    const path = names(choosePath(network(nodes), {}, seeded(seed)))
    assert.deepEqual(path.filter((name) => name === 'n5' || name === 'n6').length, 2)
  }
  const related = { path: ['n1', 'n2', 'n5'], sameNetwork: true }
  refused(choosePath(network(nodes), related, seeded(1)), 'IPP_PATH_NONE', /n1 and n2 are of one family/)
  refused(choosePath(network(nodes.slice(0, 5)), {}, seeded(1)), 'IPP_PATH_NONE', /no \w+ for a path of 3/)
  const excludeNetworks = [prefix('1.1.0.0/16'), prefix('1.2.0.0/15')]
  for (let seed = 0; seed < 50; seed++) {
    const path = choosePath(network(nodes), { excludeNetworks }, seeded(seed))
    assert.ok(path.ok)
    for (const { address } of path.value)
      assert.ok(!excludeNetworks.some((each) => contains(each, address)), address)
  }
})

test('flags decide who stands where, unless nobody has them', () => {
  const flags = ['running', 'valid', 'fast'] as const
  const nodes = [
    node(1, { flags: [...flags, 'guard'] }),
    node(2, { flags: [...flags, 'exit'] }),
    node(3, { flags }),
    node(4, { flags }),
    node(5, { flags: ['valid', 'fast', 'guard', 'exit'] }),
    node(6, { flags: ['running', 'valid'] }),
  ]
  for (let seed = 0; seed < 50; seed++) {
    const [entry, middle, exit] = names(choosePath(network(nodes), {}, seeded(seed)))
    assert.deepEqual([entry, exit], ['n1', 'n2'])
    assert.ok(middle === 'n3' || middle === 'n4')
  }
  const young = nodes.map((each) => ({ ...each, flags: ['running', 'valid'] as const }))
  const seen = new Set<string>()
  for (let seed = 0; seed < 200; seed++)
    for (const name of names(choosePath(network(young), {}, seeded(seed)))) seen.add(name)
  assert.equal(seen.size, 6)
})

/** The 0.999 quantile of chi-square, by Wilson and Hilferty. */
const criticalValue = (freedom: number): number =>
  freedom * (1 - 2 / (9 * freedom) + 3.0902 * Math.sqrt(2 / (9 * freedom))) ** 3

test('the choice follows the weights: chi-square of each position, alone and as a whole path', () => {
  for (const seed of [11, 12]) {
    // Each node in a /16 of its own and in no family, so that what is drawn first follows the weights exactly.
    const nodes = generated(60, seed).map(({ family: _, ...rest }, i) => ({
      ...rest,
      address: uint32ToIp(0x6400_0001 + (i << 16)),
    }))
    const net = roster(nodes)
    const rng = seeded(seed)
    const rounds = 30_000
    const chiSquare = (place: Place, seen: ReadonlyMap<number, number>): readonly [number, number] => {
      const total = nodes.reduce((sum, _, i) => sum + net.weight(i, place), 0)
      let [chi, freedom, rest, restSeen] = [0, -1, 0, 0]
      for (const i of nodes.keys()) {
        const expected = (rounds * net.weight(i, place)) / total
        // Those who are hardly ever drawn are counted together, or chi-square is none.
        if (expected < 20) {
          rest += expected
          restSeen += seen.get(i) ?? 0
        } else {
          chi += ((seen.get(i) ?? 0) - expected) ** 2 / expected
          freedom++
        }
      }
      return rest < 5 ? [chi, freedom] : [chi + (restSeen - rest) ** 2 / rest, freedom + 1]
    }
    for (const place of ['entry', 'middle', 'exit'] as const) {
      const drawn = new Map<number, number>()
      for (let i = 0; i < rounds; i++) {
        const index = net.draw(place, rng, () => true)!
        drawn.set(index, (drawn.get(index) ?? 0) + 1)
      }
      const [chi, freedom] = chiSquare(place, drawn)
      assert.ok(freedom > 5 && chi < criticalValue(freedom), `${place}: ${chi.toFixed(1)} of ${freedom}`)
    }
    const exits = new Map<number, number>()
    for (let i = 0; i < rounds; i++) {
      const index = net.find(names(chooseFrom(net, {}, rng))[2]!)!
      exits.set(index, (exits.get(index) ?? 0) + 1)
    }
    const [chi, freedom] = chiSquare('exit', exits)
    assert.ok(chi < criticalValue(freedom), `exits of paths: ${chi.toFixed(1)} of ${freedom}`)
    // And the test can fail: uniform draws are not what the weights say.
    const uniform = new Map<number, number>()
    const serving = [...nodes.keys()].filter((i) => net.weight(i, 'exit') > 0)
    for (let i = 0; i < rounds; i++) {
      const index = serving[i % serving.length]!
      uniform.set(index, (uniform.get(index) ?? 0) + 1)
    }
    assert.ok(chiSquare('exit', uniform)[0] > criticalValue(freedom))
  }
})

test('few acceptable ones: the chance among them is still that of their weights', () => {
  const nodes = Array.from({ length: 400 }, (_, i) =>
    node(i + 1, { bandwidth: i === 0 ? 300 : i === 1 ? 100 : 10_000 }),
  )
  const net = roster(nodes)
  const rng = seeded(5)
  let first = 0
  for (let i = 0; i < 8000; i++) if (net.draw('middle', rng, (index) => index < 2) === 0) first++
  assert.ok(Math.abs(first - 6000) < 160, `${first} of 6000`)
  assert.equal(
    net.draw('middle', rng, () => false),
    undefined,
  )
  assert.equal(
    roster([]).draw('exit', rng, () => true),
    undefined,
  )
})

test('who was not measured has a small share', () => {
  const net = roster([node(1), node(2, { bandwidth: 100 * UNMEASURED }), node(3, { bandwidth: 0 })])
  assert.equal(net.weight(1, 'exit'), 100 * net.weight(0, 'exit'))
  assert.ok(net.weight(2, 'exit') > 0, 'and who was measured to be dead can still be the only one')
})

const anyBandwidth = fc.array(fc.integer({ min: 0, max: 1_000_000 }), { minLength: MASKS, maxLength: MASKS })

test('shares of bandwidth: no position carries less than the scarcest must', () => {
  const outcomes = { balanced: 0, scarce: 0 }
  fc.assert(
    fc.property(anyBandwidth, (bandwidth) => {
      const shares = shareBandwidth(bandwidth)
      const carried = carriedBy(shares, bandwidth)
      const total = bandwidth.slice(1).reduce((sum, each) => sum + each, 0)
      for (let mask = 1; mask < MASKS; mask++) {
        const { entry, middle, exit } = shares[mask]!
        assert.ok(Math.abs(entry + middle + exit - 1) < 1e-9)
        for (const place of ['entry', 'middle', 'exit'] as const)
          assert.ok((mask & BIT[place]) !== 0 || shares[mask]![place] === 0)
      }
      if (total === 0) return
      // Hall again, with amounts: the scarcest set of positions bounds what the least of them can carry.
      const bound = Math.min(
        ...[1, 2, 3, 4, 5, 6, 7].map((kinds) => {
          const positions = [1, 2, 4].filter((bit) => (kinds & bit) !== 0).length
          const supply = bandwidth.filter((_, mask) => mask > 0 && (mask & kinds) !== 0)
          return supply.reduce((sum, each) => sum + each, 0) / positions
        }),
      )
      const balanced = bound > 0.999 * (total / 3)
      outcomes[balanced ? 'balanced' : 'scarce']++
      for (const place of ['entry', 'middle', 'exit'] as const)
        assert.ok(carried[place] >= 0.97 * bound, `${place}: ${carried[place]} of ${bound}`)
    }),
    { numRuns: 500 },
  )
  assert.ok(outcomes.balanced > 100 && outcomes.scarce > 100, JSON.stringify(outcomes))
})

test('the cases of dir-spec: scarce exits are exits only, scarce guards guards only, and plenty is shared', () => {
  const [guard, middle, exit] = [BIT.entry | BIT.middle, BIT.middle, BIT.exit | BIT.middle]
  const all = guard | exit
  const given = (amounts: Readonly<Record<number, number>>) =>
    shareBandwidth(Array.from({ length: MASKS }, (_, mask) => amounts[mask] ?? 0))
  // Case 2 of dir-spec 3.8.3, E and G scarce: Wee = Wgg = 1, nobody who can be an end stands in the middle.
  const both = given({ [guard]: 100, [middle]: 1000, [exit]: 100, [all]: 20 })
  assert.ok(both[exit]!.exit > 0.98 && both[guard]!.entry > 0.98 && both[all]!.middle < 0.02)
  // Case 3a, E scarce: Wee = Wed = 1, guards are shared with the middle.
  const exits = given({ [guard]: 1000, [middle]: 500, [exit]: 100, [all]: 100 })
  assert.ok(exits[exit]!.exit > 0.98 && exits[all]!.exit > 0.98)
  assert.ok(Math.abs(exits[guard]!.entry - 0.75) < 0.02, 'Wgg = (G + M) / 2G')
  // Case 1, nobody scarce: Wgg = (E + G + M) / 3G and so on, for what is not both.
  const none = given({ [guard]: 600, [middle]: 100, [exit]: 500 })
  assert.ok(Math.abs(none[guard]!.entry - 1200 / 1800) < 0.01)
  assert.ok(Math.abs(none[exit]!.exit - 1200 / 1500) < 0.01)
})

test('10 to 10,000 generated nodes: every path is right, and takes less than two milliseconds', () => {
  for (const size of [10, 30, 100, 1000, 10_000]) {
    const nodes = generated(size, size)
    const net = roster(nodes)
    const rng = { bytes: (length: number) => crypto.getRandomValues(new Uint8Array(length)) }
    const destination = { address: ip('203.0.113.80'), protocol: 'tcp' as const, port: 8080 }
    const rounds = 300
    let found = 0
    const began = process.cpuUsage()
    const paths = []
    for (let i = 0; i < rounds; i++) {
      const chosen = chooseFrom(net, i % 2 === 0 ? {} : { destination }, rng)
      if (chosen.ok) found = paths.push(chosen.value)
    }
    const used = process.cpuUsage(began)
    const each = (used.user + used.system) / 1000 / rounds
    assert.ok(found > (size >= 100 ? rounds - 1 : 0), `${size} nodes: ${found} paths`)
    for (const [entry, middle, exit] of paths) {
      assert.equal(new Set([entry, middle, exit].map((n) => slash16(n!.address))).size, 3)
      const families = [entry, middle, exit].map((n) => n!.family?.key[0]).filter((key) => key !== undefined)
      assert.equal(new Set(families).size, families.length)
      assert.ok(entry!.flags!.includes('guard') && exit!.flags!.includes('exit'))
    }
    assert.ok(each < 2, `${size} nodes: ${each.toFixed(3)} ms of CPU each`)
  }
})

test('ten thousand in a knot of networks and families cost no more than a moment', () => {
  const nodes = Array.from({ length: 10_000 }, (_, i) =>
    node(i + 1, { address: uint32ToIp(0x0100_0001 + ((i % 2) << 16)), ...family(2 + (i % 3)) }),
  )
  const net = roster(nodes)
  const began = process.cpuUsage()
  refused(chooseFrom(net, {}, seeded(1)), 'IPP_PATH_NONE', /10000 nodes listed/)
  refused(chooseFrom(net, { hops: 5, sameNetwork: true }, seeded(1)), 'IPP_PATH_NONE', /path of 5 hops/)
  const used = process.cpuUsage(began)
  assert.ok(used.user + used.system < 10e6, `${(used.user + used.system) / 1e6} s`)
})
