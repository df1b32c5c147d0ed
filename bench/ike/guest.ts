/**
 * The measurements of `bench -- ike`, inside a namespace of their own. Progress goes to stderr, the samples as one JSON
 * object to stdout.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { toHex, utf8 } from '#base/bytes'
import { type Ip, ip } from '#base/ip'
import { nodeCrypto } from '#crypto/node'
import { Commands } from '#demo/command'
import { PROGRAM } from '#demo/daemons'
import { PUBLISHED_KEY } from '#overlay/identity'
import { Charon } from '../../test/interop/charon.ts'
import { cpuOf, cpuSince, residentOf } from './cpu.ts'
import { Load, type Target } from './load.ts'
import { measureRefusals } from './refusal.ts'
import type { ResponderMemory, ResponderSettings } from './responder.ts'

export interface GuestOptions {
  readonly namespace: string
  readonly folder: string
  readonly rounds: number
  readonly handshakes: number
  readonly associations: number
  /** Only what has this in its name. */
  readonly only: string
}

export interface Sample {
  readonly subject: string
  readonly handshakes: number
  /** Of all threads of the responder, per handshake. */
  readonly cpuMicroseconds: number
  /** Of the one that took most. */
  readonly busiestMicroseconds: number
  /** While only the responder had something to do, per handshake. */
  readonly wallMicroseconds: number
}

export interface GuestResult {
  readonly samples: readonly Sample[]
  readonly memory?: Memory
  /** Microseconds of processor time per IKE_SA_INIT that is answered with a cookie. */
  readonly refusal?: number
}

/** Octets per IKE SA. */
export interface Memory {
  readonly associations: number
  readonly heap: number
  readonly whole: number
  /** Of strongSwan, all that is resident. */
  readonly charonResident: number
}

const ADDRESS = ip('10.77.0.1')
const PORT = 500
const SOURCE_PORT = 5500
/** As many as there are in a batch: whoever limits what one address may do does not limit these. */
const SOURCES: readonly Ip[] = Array.from({ length: 24 }, (_, i) => ip(`10.77.1.${i + 1}`))
/** A daemon runs for weeks: what is measured is code that was compiled, in a heap that has its size. */
const WARM_UP = 1920
const REFUSALS = 50_000
/** Of V8, as a node is started with. */
const NODE_FLAGS = readFileSync(PROGRAM, 'utf8').match(/--\w+-semi-space-size=\d+/g) ?? []

interface Running {
  readonly pid: number
  readonly target: Target
  stop(): Promise<unknown>
}

/** What it is called, and what is measured. */
type Measured = readonly [
  subject: string,
  start: () => Promise<Running>,
  act: 'handshakes' | 'resumptions' | 'renewals',
]

const options = JSON.parse(process.argv[2]!) as GuestOptions
const commands = new Commands(new AbortController().signal)
const say = (line: string) => process.stderr.write(`${line}\n`)
/** The responder has one processor to itself, or all. */
const LAST_CPU = String(availableParallelism() - 1)

const SUBJECTS: Readonly<Record<string, () => Promise<Running>>> = {
  'ours, classic, one core': () => startOurs(false, 1),
  'ours, ML-KEM, one core': () => startOurs(true, 1),
  'ours, classic, all cores': () => startOurs(false, availableParallelism()),
  'ours, ML-KEM, all cores': () => startOurs(true, availableParallelism()),
  'strongSwan, classic, one core': () => startCharon(),
}
/** With tickets of ours: up to the IKE_AUTH, and with the fresh keys that our own initiators ask for at once. */
const RESUMED: readonly Measured[] = [
  ['ours, resumed, one core', () => startOurs(true, 1), 'resumptions'],
  ['ours, resumed with fresh keys, one core', () => startOurs(true, 1), 'renewals'],
]
const MEASURED: readonly Measured[] = [
  ...Object.entries(SUBJECTS).map(([subject, start]) => [subject, start, 'handshakes'] as const),
  ...RESUMED,
]

const CHARON = `connections { bench {
    version = 2
    local_addrs = ${ADDRESS}
    proposals = aes256gcm16-prfsha256-x25519
    pools = all
    unique = never
    mobike = no
    send_cert = never
    send_certreq = no
    local {
      auth = pubkey
      id = "@#${toHex(utf8('bench'))}"
      pubkeys = own.pem
    }
    remote {
      auth = psk
      id = %any
    }
    children { telescope {
      local_ts = 0.0.0.0/0
      esp_proposals = aes256gcm16-x25519
    } }
} }
pools { all { addrs = 10.128.0.0/12 } }
secrets { ike-anonymous { secret = "${PUBLISHED_KEY}" } }
`

const isWanted = (name: string): boolean => name.includes(options.only)

const samples: Sample[] = []
try {
  for (let round = 1; round <= options.rounds; round++)
    for (const [subject, start, act] of MEASURED) {
      if (!isWanted(subject)) continue
      const sample = await measure(subject, start, act)
      samples.push(sample)
      const { cpuMicroseconds: cpu, busiestMicroseconds: busiest, wallMicroseconds: wall } = sample
      const [all, most, time] = [cpu, busiest, wall].map((each) => each.toFixed(0))
      say(`round ${round}: ${subject}: ${all} us CPU, ${most} of it in one thread, ${time} us per handshake`)
    }
  const result: GuestResult = {
    samples,
    ...(isWanted('memory') ? { memory: await measureMemory() } : {}),
    ...(isWanted('refusal') ? { refusal: measureRefusals(REFUSALS) } : {}),
  }
  process.stdout.write(JSON.stringify(result))
} finally {
  await commands.killAll(5000)
}

async function measure(...[subject, start, act]: Measured): Promise<Sample> {
  const { handshakes } = options
  const { pid, target, stop } = await start()
  const load = new Load(target, SOURCES, SOURCE_PORT)
  try {
    if (act !== 'handshakes') await load.collectTickets(WARM_UP + handshakes)
    await load[act](WARM_UP)
    const before = cpuOf(pid)
    const wall = await load[act](handshakes)
    const { all, busiest } = cpuSince(pid, before)
    return {
      subject,
      handshakes,
      cpuMicroseconds: all / 1000 / handshakes,
      busiestMicroseconds: busiest / 1000 / handshakes,
      wallMicroseconds: (wall * 1000) / handshakes,
    }
  } finally {
    load.close()
    await stop()
  }
}

async function measureMemory(): Promise<Memory> {
  const own = await measureOwnMemory()
  say(`${(own.heap / 1024).toFixed(1)} KiB of heap per IKE SA`)
  return { ...own, charonResident: await measureCharonMemory() }
}

async function measureOwnMemory(): Promise<Omit<Memory, 'charonResident'>> {
  const { associations } = options
  const { target, stop, child } = await startOurs(true, 1)
  const load = new Load(target, SOURCES, SOURCE_PORT)
  try {
    await load.handshakes(WARM_UP)
    const before = await memoryOf(child)
    await load.handshakes(associations)
    const after = await memoryOf(child)
    const added = after.sas - before.sas
    if (added !== associations) throw new Error(`${added} IKE SAs instead of ${associations}`)
    return {
      associations,
      heap: (after.heap - before.heap) / associations,
      whole: (after.whole - before.whole) / associations,
    }
  } finally {
    load.close()
    await stop()
  }
}

async function measureCharonMemory(): Promise<number> {
  const { pid, target, stop } = await startCharon()
  const load = new Load(target, SOURCES, SOURCE_PORT)
  const count = Math.min(1000, options.associations)
  try {
    await load.handshakes(WARM_UP)
    const before = residentOf(pid)
    await load.handshakes(count)
    return (residentOf(pid) - before) / count
  } finally {
    load.close()
    await stop()
  }
}

async function memoryOf(child: ChildProcess): Promise<ResponderMemory> {
  // Sockets and timers of the last handshakes end first.
  await sleep(500)
  child.send('memory')
  const [answer] = await once(child, 'message')
  return answer as ResponderMemory
}

async function startOurs(hybrid: boolean, cores: number): Promise<Running & { child: ChildProcess }> {
  const { privateKey, publicKey } = nodeCrypto.ed25519Generate()
  const file = join(import.meta.dirname, 'responder.ts')
  const node = [process.execPath, '--expose-gc', ...NODE_FLAGS, '--disable-warning=ExperimentalWarning', file]
  const [program, ...args] = cores === 1 ? ['taskset', '-c', LAST_CPU, ...node] : node
  const child = spawn(program!, args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  const settings: ResponderSettings = {
    seed: toHex(privateKey),
    address: ADDRESS,
    port: PORT,
    workers: cores - 1,
  }
  child.send(settings)
  await Promise.race([
    once(child, 'message'),
    once(child, 'exit').then(() => Promise.reject(new Error('our responder ended'))),
  ])
  const id = { type: 11, data: nodeCrypto.hash('sha256', publicKey) }
  return {
    pid: child.pid!,
    child,
    target: {
      endpoint: { address: ADDRESS, port: PORT },
      peer: { id, publicKey },
      credential: { kind: 'null' },
      hybrid,
      mayLackChild: false,
    },
    stop: async () => {
      const ended = once(child, 'exit')
      child.disconnect()
      await ended
    },
  }
}

/** Without logs. Its kernel may have no ESP: then the answer to IKE_AUTH proves it and says that there is no Child SA. */
async function startCharon(): Promise<Running> {
  const home = join(options.folder, 'charon')
  const charon = new Charon(commands, options.namespace, home, join(options.folder, 'charon.log'))
  // Two limits for a single address would stop the load; cookies are demanded at 30 as with Debian.
  await charon.prepare('block_threshold = 0\n  init_limit_half_open = 0', 'nothing')
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const key = join(options.folder, 'key.pem')
  await writeFile(key, privateKey.export({ format: 'pem', type: 'pkcs8' }), { mode: 0o600 })
  await charon.privateKey('own.pem', key)
  await charon.publicKey('own.pem', publicKey.export({ format: 'pem', type: 'spki' }) as string)
  await charon.start(20_000)
  await charon.load(CHARON)
  const pid = charon.pid!
  execFileSync('taskset', ['-apc', LAST_CPU, String(pid)], { stdio: 'ignore' })
  const raw = new Uint8Array(publicKey.export({ format: 'raw-public' }))
  return {
    pid,
    target: {
      endpoint: { address: ADDRESS, port: PORT },
      peer: { id: { type: 11, data: utf8('bench') }, publicKey: raw },
      credential: { kind: 'psk', key: utf8(PUBLISHED_KEY) },
      hybrid: false,
      mayLackChild: true,
    },
    stop: () => charon.stop(),
  }
}
