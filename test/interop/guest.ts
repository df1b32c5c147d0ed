/**
 * Runs as root in a kernel with ESP: our programs and Debian's strongSwan on one Internet, cell by cell. One JSON line
 * on standard output per cell.
 *
 *     client 198.18.1.1 (ours) ----+            +--- alder 198.18.10.1  ours
 *     plain  198.18.2.1 (charon) --+-- router --+--- birch 198.18.20.1  ours
 *     server 198.18.40.1 ----------+            +--- cedar 198.18.30.1  charon, as a router with a published key
 *     directory 198.18.50.1 -------+
 *
 * Node ids are dealt so that alder begins the overlay tunnel to cedar, and cedar the one to birch.
 */
import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, readFile, rename, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse, stringify } from 'yaml'
import { fromHex, toHex } from '#base/bytes'
import { readNodeKeys } from '#config/keys'
import { encodeSpki, readPublicKey } from '#crypto/public-key'
import type { EspCipher } from '#crypto/suites'
import { Commands, sleep, until } from '#demo/command'
import { contentDigest, MEBIBYTE, PAGE_MARK } from '#demo/content'
import {
  type CircuitStatus,
  type ClientStatus,
  clientReady,
  configOf,
  type DirectoryStatus,
  defaultCircuit,
  type NodeStatus,
  nodeReady,
  prepareDaemons,
  ready,
  socketOf,
  statusOf,
} from '#demo/daemons'
import { Scene } from '#demo/scene'
import {
  fell,
  type Host,
  hostOf,
  inNamespace,
  planTopology,
  raise,
  runDirectory,
  type Topology,
} from '#demo/topology'
import { controlRequest } from '#linux/control'
import { PUBLISHED_KEY } from '#overlay/identity'
import { Charon } from './charon.ts'
import {
  clientConfig,
  type Neighbour,
  relayConfig,
  relayScript,
  type StockStatus,
  SUITES,
} from './routers.ts'

export interface Cell {
  readonly part: string
  readonly name: string
  readonly passed: boolean
  readonly milliseconds: number
  readonly detail: string
}

const OCTETS = MEBIBYTE + 7
const LIMIT = 120_000
/** Debian's own default, and what our client's second profile offers. */
const CIPHERS: readonly (keyof typeof SUITES & EspCipher)[] = ['aes-256-gcm-16', 'chacha20-poly1305']

const scene = await makeScene()
const { commands, topology, traffic, daemons } = scene
const client = hostOf(topology, 'client')
const relay = charonOn(hostOf(topology, 'cedar'))
let router: StockStatus | undefined
/** Once nothing works, the cells behind fail at once. */
let broken: string | undefined

try {
  await story()
} finally {
  await commands.killAll(5000)
  await fell(commands, topology.id)
}

async function story(): Promise<void> {
  await essential('setup', 'our nodes and directory; the stock router is listed', bringUp)
  await cell('c overlay', 'our node begins the tunnel to charon', () => overlayUp('alder'))
  await cell('c overlay', 'charon begins the tunnel to our node', async () => {
    // Our node may have begun one when it started; when that one ends, it leaves the next to the lower id at first.
    await until('charon to be first', LIMIT, async () => {
      await relay.swanctl('--terminate', '--ike', 'ov-birch', '--timeout', '5')
      const { stdout } = await relay.swanctl('--initiate', '--child', 'ov-birch', '--timeout', '30')
      assert.match(stdout, /initiate completed successfully/, lastLines(stdout))
      return true
    })
    return await overlayUp('birch')
  })
  for (const cipher of CIPHERS) {
    await cell('a telescope', `charon as exit, ${cipher}`, async () => {
      await restartClient(['alder', 'birch', 'cedar'], cipher)
      return await carries(await defaultCircuitOpen(), 'cedar', cipher)
    })
    await cell('a telescope', `charon as middle, ${cipher}`, async () =>
      carries(await build('alder', 'cedar', 'birch'), 'birch', cipher),
    )
    await cell('a telescope', `charon as exit of two hops, ${cipher}`, async () =>
      carries(await build('alder', 'cedar'), 'cedar', cipher),
    )
  }
  await cell('a telescope', 'charon rekeys the Child SA of the exit', async () =>
    rekeyed('--child', 'telescope'),
  )
  await cell('a telescope', 'charon rekeys the IKE SA of the exit', async () => rekeyed('--ike', 'telescope'))
  await cell('c overlay', 'charon rekeys the Child SA of the tunnel', async () =>
    rekeyed('--child', 'ov-alder'),
  )
  await cell('c overlay', 'charon rekeys the IKE SA of the tunnel', async () => rekeyed('--ike', 'ov-alder'))
  for (const ike of [false, true]) {
    const what = ike ? 'IKE' : 'Child'
    await cell('a telescope', `our client rekeys the ${what} SA of the exit`, async () =>
      rekeyedByUs('client', ike, { id: (await defaultCircuitOpen()).id, hop: 3 }, 'cedar'),
    )
    await cell('a telescope', `our client rekeys the ${what} SA of the middle`, async () => {
      const circuit = await build('alder', 'cedar', 'birch')
      return await rekeyedByUs('client', ike, { id: circuit.id, hop: 2 }, 'birch', circuit)
    })
    await cell('c overlay', `our node rekeys the ${what} SA of the tunnel`, async () =>
      rekeyedByUs('alder', ike, { peer: 'cedar' }, 'birch', await build('alder', 'cedar', 'birch')),
    )
  }
  await cell('a telescope', 'our client deletes a hop at charon', async () => {
    const before = await telescopesOf()
    for (const { id } of (await statusOf<ClientStatus>(daemons.get('client')!)).circuits.filter(
      (c) => !c.default,
    ))
      await controlRequest(socketOf(topology, 'client'), 'circuits.close', { id }, LIMIT)
    await until('charon to forget the circuits closed', LIMIT, async () =>
      (await telescopesOf()) < before ? true : undefined,
    )
    return `${before} telescopes at charon, then ${await telescopesOf()}`
  })
  await cell('a telescope', 'charon deletes a hop: the client notices and builds another', async () => {
    const gone = await defaultCircuitOpen()
    await relay.swanctl('--terminate', '--ike', 'telescope')
    return await carries(await defaultCircuitOpen(gone), 'cedar', CIPHERS[1]!)
  })
  await cell('a telescope', 'charon as entry', async () => {
    await restartClient(['cedar', 'alder', 'birch'], CIPHERS[0]!)
    return await carries(await defaultCircuitOpen(), 'birch', CIPHERS[0]!)
  })
  await cell('a telescope', 'MOBIKE: our client moves, charon as entry', async () => {
    const circuit = await defaultCircuitOpen()
    const { address } = client
    const elsewhere = address.replace(/1$/, '77')
    for (const [from, to] of [
      [address, elsewhere],
      [elsewhere, address],
    ] as const) {
      await relocate(client, from, to)
      await until('charon to follow', LIMIT, async () =>
        (await relay.sas()).includes(`${to}[4500]`) ? true : undefined,
      )
      assert.equal((await defaultCircuitOpen()).id, circuit.id, 'the same circuit')
      await carries(circuit, 'birch', CIPHERS[0]!)
    }
    return `to ${elsewhere} and back: the same circuit carries page and file`
  })
  await cell('a telescope', 'charon answers our liveness checks', async () => {
    const checks = await until('a liveness check', LIMIT, async () => {
      const log = await readFile(relayLog(), 'utf8')
      // A DELETE has a payload.
      const answered = log.match(/parsed INFORMATIONAL request \d+ \[ \]/g)
      return answered === null ? undefined : answered.length
    })
    return `${checks} answered`
  })
  for (const kind of ['ECDSA P-256', 'ECDSA P-384', 'RSA 2048'] as const) {
    await cell('a signatures', `charon as exit and overlay peer signs with ${kind}`, async () => {
      await giveKey(kind)
      await restartClient(['alder', 'cedar'], CIPHERS[0]!)
      return await carries(await defaultCircuitOpen(), 'cedar', CIPHERS[0]!)
    })
  }
  await daemons.get('client')?.process.stop(20_000)
  for (const cipher of CIPHERS)
    await cell('b client', `charon through our node, ${cipher}`, () => stockClient(cipher))
  await cell('b client', 'charon through our node, key exchange P-256', () =>
    stockClient(CIPHERS[0]!, 'ecp256'),
  )
  await cell('b client', 'MOBIKE: charon moves, through our node', () =>
    stockClient(CIPHERS[0]!, 'x25519', async (host) => {
      await relocate(host, host.address, host.address.replace(/1$/, '77'))
      await until('an answer from the new address', LIMIT, async () =>
        (await traffic.ping(host, 3)).received > 0 ? true : undefined,
      )
    }),
  )
}

// ---------------------------------------------------------------------------------------------- bringing up

async function makeScene(): Promise<Scene> {
  const whole = planTopology(`ippd${process.pid}`)
  const needed = ['client', 'plain', 'server', 'directory', 'alder', 'birch', 'cedar']
  const small: Topology = { ...whole, hosts: whole.hosts.filter((host) => needed.includes(host.name)) }
  return new Scene(new Commands(new AbortController().signal), small, {
    plane: 'xfrm',
    hops: 3,
    cipher: 'aes-256-gcm-16',
    out: process.argv[2] ?? (await mkdtemp(join(tmpdir(), 'ippriv-interop-'))),
    keep: false,
    lossPercent: 0,
    mebibytes: 0,
    userModeLinux: true,
    say: (text) => process.stderr.write(`${text}\n`),
  })
}

async function bringUp(): Promise<string> {
  await Promise.all([raise(commands, topology), prepareDaemons(commands, topology, scene.options)])
  await dealKeys()
  await amend('cedar', { stock: { key: PUBLISHED_KEY } })
  const directory = scene.start(hostOf(topology, 'directory'))
  const origin = scene.startOrigin()
  await ready<DirectoryStatus>(directory, LIMIT, () => undefined)
  for (const name of ['alder', 'birch', 'cedar']) scene.start(hostOf(topology, name))
  await origin
  router = await ready<StockStatus>(daemons.get('cedar')!, LIMIT, ({ listed, neighbours }) =>
    listed && neighbours.length === 2 ? undefined : 'it does not know its neighbours',
  )
  const { address, namespace } = hostOf(topology, 'cedar')
  await relay.prepare('install_routes = no\n  rsa_pss = yes')
  await relay.privateKey('own.pem', join(keysOf('cedar'), 'ike.pem'))
  await relay.publicKey('own.pem', pem((await readNodeKeys(keysOf('cedar'))).ike.publicKey))
  for (const peer of router.neighbours) await relay.publicKey(`${peer.name}.pem`, pem(fromHex(peer.ikeKey)))
  await commands.run(inNamespace(namespace, 'sh', '-s'), { input: relayScript(address, router) })
  await relay.start(LIMIT)
  await relay.load(relayConfig(address, router))
  return `pool ${router.pool}, neighbours ${router.neighbours.map(({ name }) => name).join(', ')}`
}

/** In ascending order of ids: the lower of two nodes begins their tunnel. */
async function dealKeys(): Promise<void> {
  const names = ['alder', 'cedar', 'birch']
  const made = await Promise.all(names.map(async (name) => ({ name, ...(await readNodeKeys(keysOf(name))) })))
  const sorted = made.toSorted((a, b) => (a.nodeId < b.nodeId ? -1 : 1))
  for (const { name } of made) await rename(keysOf(name), `${keysOf(name)}.dealt`)
  for (const [i, { name }] of sorted.entries()) await rename(`${keysOf(name)}.dealt`, keysOf(names[i]!))
}

/** Another key for charon: its speaker publishes it, every peer pins it, and the tunnels are made anew. */
async function giveKey(kind: 'ECDSA P-256' | 'ECDSA P-384' | 'RSA 2048'): Promise<void> {
  const pair =
    kind === 'RSA 2048'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: kind === 'ECDSA P-256' ? 'P-256' : 'P-384' })
  const [own, pub] = [join(keysOf('cedar'), 'router.pem'), join(keysOf('cedar'), 'router.pub.pem')]
  await writeFile(own, pair.privateKey.export({ format: 'pem', type: 'pkcs8' }), { mode: 0o600 })
  const text = pair.publicKey.export({ format: 'pem', type: 'spki' }) as string
  await writeFile(pub, text)
  await relay.privateKey('own.pem', own)
  await relay.publicKey('own.pem', text)
  await relay.swanctl('--terminate', '--ike', 'ov-alder', '--force')
  await relay.swanctl('--terminate', '--ike', 'ov-birch', '--force')
  await relay.load(relayConfig(hostOf(topology, 'cedar').address, router!))
  await amend('cedar', { stock: { key: PUBLISHED_KEY, publicKey: pub } })
  await daemons.get('cedar')!.process.stop(20_000)
  scene.start(hostOf(topology, 'cedar'))
  const wanted = toHex(new Uint8Array(pair.publicKey.export({ format: 'der', type: 'spki' })))
  await ready<StockStatus>(daemons.get('cedar')!, LIMIT, ({ ikeKey }) =>
    ikeKey === wanted ? undefined : 'the consensus has the old key',
  )
  await overlayUp('alder')
}

async function overlayUp(name: string): Promise<string> {
  const others = ['alder', 'birch', 'cedar'].filter((other) => other !== name)
  await ready<NodeStatus>(daemons.get(name)!, LIMIT, nodeReady(others))
  const sas = await relay.sas()
  assert.match(sas, new RegExp(`ov-${name}: #\\d+, ESTABLISHED`), sas)
  return sas.match(new RegExp(`ov-${name}: #.*?\\n.*?\\n.*?\\n\\s*(\\S+)\\n`))?.[1] ?? ''
}

// ---------------------------------------------------------------------------------------------- our client

async function restartClient(path: readonly string[], cipher: EspCipher): Promise<void> {
  await daemons.get('client')?.process.stop(30_000)
  await amend('client', { circuit: { path, cipher, sameNetwork: true } })
  scene.start(client)
}

/** The client's own circuit, once it is another than `gone`. */
async function defaultCircuitOpen(gone?: CircuitStatus): Promise<CircuitStatus> {
  const status = await ready<ClientStatus>(daemons.get('client')!, LIMIT, (status) =>
    gone !== undefined && defaultCircuit(status)?.id === gone.id
      ? 'it keeps the old circuit'
      : clientReady(status),
  )
  return defaultCircuit(status)!
}

async function build(...path: readonly string[]): Promise<CircuitStatus> {
  return (await controlRequest(
    socketOf(topology, 'client'),
    'circuits.build',
    { path },
    LIMIT,
  )) as CircuitStatus
}

/** A page and a file go through a circuit and come out at its exit. */
async function carries(circuit: CircuitStatus, exit: string, cipher: EspCipher): Promise<string> {
  assert.equal(circuit.cipher, cipher)
  const from = circuit.privateAddresses.at(-1)!
  assert.ok((await traffic.page(client, '/', from)).includes(PAGE_MARK))
  assert.equal((await traffic.page(client, '/whoami', from)).trim(), hostOf(topology, exit).address)
  const { octets, sha256, mbps } = await traffic.download(client, OCTETS, from)
  assert.deepEqual([octets, sha256], [OCTETS, contentDigest(OCTETS)])
  return `${circuit.path.join(' > ')}: page and ${OCTETS} octets verified, ${mbps.toFixed(1)} Mbit/s`
}

async function telescopesOf(): Promise<number> {
  return [...(await relay.sas()).matchAll(/^telescope: #\d+, ESTABLISHED/gm)].length
}

async function rekeyed(kind: '--child' | '--ike', name: string): Promise<string> {
  const mark = (await readFile(relayLog(), 'utf8')).length
  const { stdout } = await relay.swanctl('--rekey', kind, name)
  await sleep(5000)
  const since = (await readFile(relayLog(), 'utf8')).slice(mark)
  const failure = /.*(?:rekeying failed|not support .* rekeying).*/i.exec(since)?.[0] ?? ''
  assert.ok(failure === '', failure)
  const done =
    kind === '--child' ? /inbound CHILD_SA \S+ established|CHILD_SA \S+ established/ : /IKE_SA \S+ rekeyed/
  assert.match(since, done, lastLines(`${stdout}\n${since}`))
  return await carries(await defaultCircuitOpen(), 'cedar', CIPHERS[1]!)
}

/** A rekey that one of our daemons begins, as charon saw it; and `circuit` goes on. */
async function rekeyedByUs(
  name: 'client' | 'alder',
  ike: boolean,
  which: object,
  exit: string,
  circuit?: CircuitStatus,
): Promise<string> {
  const mark = (await readFile(relayLog(), 'utf8')).length
  const method = name === 'client' ? 'circuits.rekey' : 'overlay.rekey'
  await controlRequest(socketOf(topology, name), method, { ...which, ike }, LIMIT)
  const done = ike ? /IKE_SA \S+ rekeyed/ : /outbound CHILD_SA \S+ established/
  await until('charon to use the new keys', LIMIT, async () =>
    done.test((await readFile(relayLog(), 'utf8')).slice(mark)) ? true : undefined,
  )
  return await carries(circuit ?? (await defaultCircuitOpen()), exit, CIPHERS[1]!)
}

// ---------------------------------------------------------------------------------------------- stock client

async function stockClient(
  cipher: keyof typeof SUITES,
  group = 'x25519',
  meanwhile: (host: Host) => Promise<void> = async () => {},
): Promise<string> {
  const host = hostOf(topology, 'plain')
  const charon = charonOn(host, `${cipher}-${group}`)
  const alder = router!.neighbours.find(({ name }) => name === 'alder') as Neighbour
  await charon.prepare('')
  await charon.publicKey('alder.pem', pem(fromHex(alder.ikeKey)))
  await charon.start(LIMIT)
  try {
    const { ike, esp } = SUITES[cipher]
    await charon.load(clientConfig(alder, { ike: ike.replace('x25519', group), esp }))
    const { stdout } = await charon.swanctl('--initiate', '--child', 'everything', '--timeout', '30')
    assert.match(stdout, /initiate completed successfully/, lastLines(stdout))
    assert.match(
      await charon.sas(),
      cipher === 'aes-256-gcm-16' ? /ESP:AES_GCM_16-256/ : /ESP:CHACHA20_POLY1305/,
    )
    assert.ok((await traffic.page(host, '/')).includes(PAGE_MARK))
    await meanwhile(host)
    assert.equal((await traffic.page(host, '/whoami')).trim(), hostOf(topology, 'alder').address)
    const { octets, sha256, mbps } = await traffic.download(host, OCTETS)
    assert.deepEqual([octets, sha256], [OCTETS, contentDigest(OCTETS)])
    const ended = await charon.swanctl('--terminate', '--ike', 'gateway', '--timeout', '20')
    assert.match(ended.stdout, /terminate completed successfully/, lastLines(ended.stdout))
    await ready<NodeStatus>(daemons.get('alder')!, LIMIT, ({ circuits }) =>
      circuits === 0 ? undefined : 'it lends',
    )
    return `page and ${OCTETS} octets verified, ${mbps.toFixed(1)} Mbit/s; deleted by charon, lease returned`
  } finally {
    await charon.stop()
  }
}

// ---------------------------------------------------------------------------------------------- pieces

/** A host gets another address on its one device. */
async function relocate({ namespace, gateway }: Host, from: string, to: string): Promise<void> {
  const batch = [
    `addr add ${to}/24 dev eth0`,
    `addr del ${from}/24 dev eth0`,
    // Of the same prefix the second address goes with the first.
    `addr replace ${to}/24 dev eth0`,
    `route replace default via ${gateway}`,
  ]
  await commands.run(inNamespace(namespace, 'ip', '-batch', '-'), { input: `${batch.join('\n')}\n` })
}

async function cell(part: string, name: string, work: () => Promise<string>): Promise<boolean> {
  const began = performance.now()
  const tell = (passed: boolean, detail: string): boolean => {
    const milliseconds = Math.round(performance.now() - began)
    process.stdout.write(`${JSON.stringify({ part, name, passed, milliseconds, detail } satisfies Cell)}\n`)
    return passed
  }
  if (broken !== undefined) return tell(false, `not tried: ${broken}`)
  try {
    return tell(true, await work())
  } catch (error) {
    return tell(false, (error as Error).message.replaceAll(/\s+/g, ' ').slice(0, 600))
  }
}

async function essential(part: string, name: string, work: () => Promise<string>): Promise<void> {
  if (!(await cell(part, name, work))) broken = `${name} failed`
}

function charonOn(host: Host, tag = 'charon'): Charon {
  const home = join(runDirectory(topology.id), `${host.name}-${tag}`)
  return new Charon(commands, host.namespace, home, join(scene.options.out, `${host.name}-${tag}.log`))
}

function relayLog(): string {
  return join(scene.options.out, 'cedar-charon.log')
}

function keysOf(name: string): string {
  return join(runDirectory(topology.id), name, 'keys')
}

async function amend(name: string, changes: object): Promise<void> {
  const file = configOf(scene.options.out, name)
  await writeFile(file, stringify({ ...parse(await readFile(file, 'utf8')), ...changes }))
}

function pem(key: Uint8Array): string {
  const base64 = Buffer.from(encodeSpki(readPublicKey(key)!)).toString('base64')
  return `-----BEGIN PUBLIC KEY-----\n${base64.replaceAll(/.{64}/g, '$&\n')}\n-----END PUBLIC KEY-----\n`
}

function lastLines(text: string): string {
  return text.trim().split('\n').slice(-6).join('; ')
}
