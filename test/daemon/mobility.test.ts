/**
 * A laptop with the real daemons: behind a NAT, and from one network into another while it downloads. The tests share
 * one network and follow each other.
 *
 *     client eth0 198.18.1.x  ---.                  .--- alder, birch, cedar
 *            eth1 198.18.3.1  ----+- router (NAT) --+
 *                                                   '--- directory, server
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { contentDigest, MEBIBYTE } from '#demo/content'
import type { ClientStatus } from '#demo/daemons'
import { inNamespace } from '#demo/topology'
import { Lab, unavailable } from './lab.ts'

const missing = unavailable()
const lab = new Lab(['alder', 'birch', 'cedar'])
const PATH = ['alder', 'birch', 'cedar']
/** Seconds of download on a fast machine. */
const LARGE = 48 * MEBIBYTE

before(async () => {
  if (missing) return
  await lab.raise(3)
  lab.configure('client', { 'circuit.path': PATH })
  await Promise.all([lab.startServer(), lab.startNetwork()])
  await inClient('ip link add eth1 type veth peer name r-client2 netns', lab.topology.router)
  await inRouter('ip addr add 198.18.3.254/24 dev r-client2 && ip link set r-client2 up')
})

after(() => lab.down())

async function inClient(...script: readonly string[]): Promise<void> {
  await lab.commands.run(inNamespace(lab.host('client').namespace, 'sh', '-ec', script.join(' ')))
}

async function inRouter(script: string): Promise<string> {
  return (await lab.commands.run(inNamespace(lab.topology.router, 'sh', '-ec', script))).stdout
}

const circuitOf = ({ circuits }: ClientStatus) => ({
  id: circuits[0]!.id,
  privateAddresses: circuits[0]!.privateAddresses,
  path: circuits[0]!.path,
})

async function downloads(octets: number, meanwhile: () => Promise<unknown> = async () => {}): Promise<void> {
  const [done] = await Promise.all([lab.traffic.download(lab.host('client'), octets), meanwhile()])
  assert.deepEqual([done.octets, done.sha256], [octets, contentDigest(octets)])
}

test('behind a NAT: the circuit opens, and its outermost layer is UDP alone', async (t) => {
  if (missing) return t.skip(missing)
  await inRouter(`nft -f - <<'END'
table ip box {
  chain post { type nat hook postrouting priority srcnat; ip saddr { 198.18.1.0/24, 198.18.3.0/24 } masquerade fully-random; }
}
END`)
  lab.start('client')
  assert.deepEqual(circuitOf(await lab.clientReady()).path, PATH)
  const bare = await lab.seenOnCable('ip proto 50', () => downloads(MEBIBYTE))
  assert.deepEqual(bare, [])
  const status = await lab.status<{ circuits: number }>('alder', () => undefined)
  assert.equal(status.circuits, 1)
})

test('into another network under a download: the same circuit, every octet, and nothing beside it', async (t) => {
  if (missing) return t.skip(missing)
  const circuit = circuitOf(await lab.clientReady())
  const leaked = await lab.leaksWhile(() =>
    downloads(LARGE, async () => {
      await new Promise((resolve) => setTimeout(resolve, 500))
      await inClient(
        'ip link set eth0 down; ip addr add 198.18.3.1/24 dev eth1; ip link set eth1 up;',
        'ip route replace default via 198.18.3.254',
      )
      await lab.tryEverything()
    }),
  )
  assert.deepEqual(leaked, [])
  assert.deepEqual(circuitOf(await lab.clientReady()), circuit)
  assert.equal(lab.logged('client', 'the entry knows where we are now').length, 1)
})

test('back, under another address and without the NAT: the same circuit, and bare ESP', async (t) => {
  if (missing) return t.skip(missing)
  const circuit = circuitOf(await lab.clientReady())
  await inRouter('nft delete table ip box')
  await inClient(
    'ip link set eth1 down; ip addr flush dev eth0; ip addr add 198.18.1.77/24 dev eth0; ip link set eth0 up;',
    'ip route replace default via 198.18.1.254',
  )
  await lab.status('client', () =>
    lab.logged('client', 'the entry knows where we are now').length < 2 ? 'the move' : undefined,
  )
  const inUdp = await lab.seenOnCable('udp port 4500 and greater 200', () => downloads(MEBIBYTE))
  assert.deepEqual(inUdp, [])
  assert.deepEqual(circuitOf(await lab.clientReady()), circuit)
  assert.equal(await lab.stop('client'), 0)
})
