/**
 * Processes around one directory, all in one network namespace: `load.ts JOB`, where the job is JSON. The server says
 * its port, a prober how long answers took, an uploader what was said to its descriptors.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Agent, request } from 'undici'
import { utf8 } from '#base/bytes'
import { unwrap } from '#base/result'
import { instant, unixTime } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { startDirectory } from '#directory/daemon'
import { decodeDescriptor } from '#directory/descriptor'
import { freePools } from '#directory/pools'
import { openDirectoryStore } from '#directory/store'
import { newKeyPair, PERIOD, PLAN, START } from './network.ts'

export type Job =
  | {
      readonly role: 'serve'
      readonly folder: string
      readonly nodes: string
      readonly open: boolean
      readonly work: number
    }
  | {
      readonly role: 'probe'
      readonly url: string
      readonly sources: readonly string[]
      readonly count: number
    }
  | {
      readonly role: 'upload'
      readonly url: string
      readonly sources: readonly string[]
      readonly file: string
    }

export interface Served {
  readonly port: number
}
export interface Probed {
  readonly ms: readonly number[]
  readonly failed: number
}
export interface Uploaded {
  readonly seconds: number
  /** By HTTP status. */
  readonly statuses: Readonly<Record<string, number>>
}
export interface Standing {
  readonly listed: readonly string[]
  readonly cpuSeconds: number
  readonly resident: number
}

const LOOPBACK = '127.0.0.1'
const SILENT = { debug() {}, info() {}, warn() {}, error() {} }
const PLENTY = { burst: 1e6, perSecond: 1e6 }

/** `open`: uploads from anywhere, as many as come. The first nodes are put into the store beforehand. */
async function serve({ folder, nodes, open, work }: Extract<Job, { role: 'serve' }>): Promise<Served> {
  const began = performance.now()
  const now = () => START + 60 + (performance.now() - began) / 1000
  const texts = JSON.parse(readFileSync(nodes, 'utf8')) as string[]
  const pools = freePools(PLAN, [], texts.length)
  const { mkdir } = await import('node:fs/promises')
  await mkdir(folder, { recursive: true })
  const store = await openDirectoryStore(join(folder, 'directory.level'), nodeCrypto)
  for (const [i, text] of texts.entries()) {
    const descriptor = unwrap(decodeDescriptor(utf8(text), nodeCrypto))
    await store.putNode({ descriptor, text, pool: pools[i]!, since: unixTime(START) })
  }
  await store.close()
  const directory = await startDirectory({
    listen: { address: '0.0.0.0', port: 0 },
    key: newKeyPair(),
    stateDir: folder,
    plan: PLAN,
    period: PERIOD,
    crypto: nodeCrypto,
    log: SILENT,
    work,
    clock: { unixTime: () => unixTime(Math.floor(now())), monotonic: () => instant(performance.now()) },
    ...(open ? { uploads: 'anywhere', limits: { uploads: PLENTY, reads: PLENTY } } : {}),
  })
  process.on('message', async () => {
    const { user, system } = process.cpuUsage()
    const reply = await request(`http://${LOOPBACK}:${directory.port}/v1/consensus`)
    const [body = ''] = (await reply.body.text()).split('\n')
    const listed = (JSON.parse(body) as { nodes: { descriptor: string }[] }).nodes
    const standing: Standing = {
      listed: listed.map(({ descriptor }) => descriptor),
      cpuSeconds: (user + system) / 1e6,
      resident: process.resourceUsage().maxRSS * 1024,
    }
    process.send!(standing)
  })
  return { port: directory.port }
}

/** One question after the other, each from the next address; the answer is the whole document, packed. */
async function probe({ url, sources, count }: Extract<Job, { role: 'probe' }>): Promise<Probed> {
  const agents = sources.map((localAddress) => new Agent({ localAddress }))
  const ms: number[] = []
  let failed = 0
  for (let i = 0; i < count; i++) {
    const began = performance.now()
    const headers = { 'accept-encoding': 'br' }
    const reply = await request(url, { dispatcher: agents[i % agents.length]!, headers })
    const { byteLength } = await reply.body.arrayBuffer()
    if (reply.statusCode === 200 && byteLength > 0) ms.push(performance.now() - began)
    else failed++
    await new Promise((wake) => setTimeout(wake, 2))
  }
  await Promise.all(agents.map((agent) => agent.destroy()))
  return { ms, failed }
}

/** Each address has one connection, and sends its share as fast as it is answered. */
async function upload({ url, sources, file }: Extract<Job, { role: 'upload' }>): Promise<Uploaded> {
  const texts = JSON.parse(readFileSync(file, 'utf8')) as string[]
  const statuses: Record<string, number> = {}
  const began = performance.now()
  await Promise.all(
    sources.map(async (localAddress, i) => {
      const dispatcher = new Agent({ connections: 1, localAddress })
      for (let n = i; n < texts.length; n += sources.length) {
        const body = texts[n]!
        const headers = { 'content-type': 'text/plain' }
        const reply = await request(url, { method: 'POST', dispatcher, headers, body })
        await reply.body.dump()
        statuses[reply.statusCode] = (statuses[reply.statusCode] ?? 0) + 1
      }
      await dispatcher.destroy()
    }),
  )
  return { seconds: (performance.now() - began) / 1000, statuses }
}

async function main(): Promise<void> {
  const job = JSON.parse(process.argv[2] ?? '') as Job
  const done =
    job.role === 'serve' ? await serve(job) : job.role === 'probe' ? await probe(job) : await upload(job)
  process.send!(done)
  if (job.role !== 'serve') process.disconnect()
}

if (process.argv[1] === import.meta.filename) await main()
