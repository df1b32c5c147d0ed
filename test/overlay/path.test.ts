import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { NodeId } from '#base/ids'
import { type Ip, ip, ipToUint32, prefix, uint32ToIp } from '#base/ip'
import type { Result } from '#base/result'
import type { Rng } from '#base/rng'
import { unixTime } from '#base/time'
import type { Consensus, ConsensusNode, NodeRole } from '#directory/documents'
import { DEFAULT_EXIT_POLICY, exitAllows, parseExitPolicy } from '#nat/exit-policy'
import { choosePath, type PathConstraints, rolesAt } from '#overlay/path'

const ALL: readonly NodeRole[] = ['entry', 'middle', 'exit']
const NO_KEY = new Uint8Array(32)

function node(index: number, changes: Partial<ConsensusNode> = {}): ConsensusNode {
  return {
    nodeId: index.toString(16).padStart(64, '0') as NodeId,
    identityKey: NO_KEY,
    ikeKey: NO_KEY,
    name: `n${index}`,
    address: uint32ToIp(0x6400_0001 + (index << 16)),
    port: 500,
    roles: ALL,
    exitPolicy: DEFAULT_EXIT_POLICY,
    published: unixTime(0),
    software: 'ippriv',
    pool: { address: uint32ToIp(0x0a40_0000 + index * 4096), length: 20 },
    ...changes,
  }
}

const network = (nodes: readonly ConsensusNode[]): Consensus => ({
  validAfter: unixTime(0),
  freshUntil: unixTime(1),
  validUntil: unixTime(3),
  serial: 1,
  poolSpace: prefix('10.64.0.0/10'),
  nodes,
})

/** Deterministic: mulberry32. */
function seeded(seed: number): Rng {
  let state = seed >>> 0
  return {
    bytes: (length) =>
      Uint8Array.from({ length }, () => {
        state = (state + 0x6d2b79f5) >>> 0
        let t = Math.imul(state ^ (state >>> 15), state | 1)
        t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
        return ((t ^ (t >>> 14)) >>> 8) & 255
      }),
  }
}

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
    /4 nodes listed, 2 can be exit/,
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

test('the choice is uniform: chi-square of exits and entries over twenty equal nodes', () => {
  const net = network(Array.from({ length: 20 }, (_, i) => node(i + 1)))
  const rng = seeded(11)
  const rounds = 20_000
  const counts = [new Map<string, number>(), new Map<string, number>(), new Map<string, number>()]
  for (let i = 0; i < rounds; i++)
    for (const [place, name] of names(choosePath(net, {}, rng)).entries())
      counts[place]!.set(name, (counts[place]!.get(name) ?? 0) + 1)
  for (const seen of counts) {
    let chi = 0
    for (let i = 1; i <= 20; i++) chi += ((seen.get(`n${i}`) ?? 0) - rounds / 20) ** 2 / (rounds / 20)
    // 19 degrees of freedom, p = 0.001.
    assert.ok(chi < 43.8, `chi-square ${chi.toFixed(1)}`)
  }
})
