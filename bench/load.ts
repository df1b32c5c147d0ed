/**
 * The other end of `load-server.ts`: `node bench/load.ts PLAN` with the plan as JSON; prints the result as JSON.
 * Runs in the namespace whose traffic is measured, as any application would.
 */

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { busySeconds } from './processors.ts'

export interface LoadPlan {
  readonly server: string
  readonly port: number
  /** A SOCKS5 proxy. */
  readonly proxy?: { readonly address: string; readonly port: number; readonly isolate: boolean }
  /** Bulk streams beside the measurement, or being the measurement. */
  readonly down?: number
  readonly up?: number
  /** What is measured; `bulk` measures the streams above. */
  readonly measure: 'bulk' | 'round-trips' | 'page'
  /** Streams run this long before anything counts. */
  readonly warmupMs: number
  readonly durationMs: number
}

export interface LoadResult {
  /** Goodput of the bulk streams during the measurement. */
  readonly downMbps: number
  readonly upMbps: number
  /** Application round trips of 1,024 octets. */
  readonly roundTripsMs: readonly number[]
  /** Whole pages: one document, then 60 objects over 6 connections. */
  readonly pagesMs: readonly number[]
  /** Of the measurement, without the warm-up: how long it took, and processor time of the whole machine. */
  readonly seconds: number
  readonly busySeconds: number
}

const MESSAGE = Buffer.alloc(1024, 0x41)
/** A round trip every so often; the next one waits for the last. */
const PACE_MS = 20
const PATIENCE_MS = 20_000
const DOCUMENT = 60_000
const CONNECTIONS = 6
/** Octets of each object: a few large ones among many small, 1.8 MB in all, as pages of the HTTP Archive have them. */
const OBJECTS = Array.from({ length: 60 }, (_, i) => (i % 10 === 0 ? 150_000 : i % 3 === 0 ? 30_000 : 8_000))

async function main(plan: LoadPlan): Promise<LoadResult> {
  const streams = await Promise.all([
    ...Array.from({ length: plan.down ?? 0 }, (_, i) => openDown(plan, i)),
    ...Array.from({ length: plan.up ?? 0 }, (_, i) => openUp(plan, i)),
  ])
  const down = streams.filter((stream) => stream.kind === 'down')
  const up = streams.filter((stream) => stream.kind === 'up')
  const echo = plan.measure === 'round-trips' ? await open(plan, 'echo', 0) : undefined
  await sleep(plan.warmupMs)
  const began = performance.now()
  const before = [octets(down), octets(up)]
  const busyBefore = await busySeconds()
  const roundTripsMs = echo === undefined ? [] : await exchange(echo, plan.durationMs)
  const pagesMs = plan.measure === 'page' ? await pages(plan) : []
  if (plan.measure === 'bulk') await sleep(plan.durationMs)
  const seconds = (performance.now() - began) / 1000
  const rate = (now: number, then: number) => (8 * (now - then)) / seconds / 1e6
  const result = {
    downMbps: rate(octets(down), before[0]!),
    upMbps: rate(octets(up), before[1]!),
    roundTripsMs,
    pagesMs,
    seconds,
    busySeconds: (await busySeconds()) - busyBefore,
  }
  for (const { socket } of streams) socket.destroy()
  echo?.destroy()
  return result
}

interface Stream {
  readonly kind: 'down' | 'up'
  readonly socket: Socket
  received: number
}

const octets = (streams: readonly Stream[]): number =>
  streams.reduce((sum, { received }) => sum + received, 0)

async function openDown(plan: LoadPlan, index: number): Promise<Stream> {
  const socket = await open(plan, 'down', index)
  const stream: Stream = { kind: 'down', socket, received: 0 }
  socket.on('data', (chunk) => {
    stream.received += chunk.length
  })
  return stream
}

/** What counts is what the server says it got: a sender's own count includes every buffer on the way. */
async function openUp(plan: LoadPlan, index: number): Promise<Stream> {
  const socket = await open(plan, 'up', index)
  const stream: Stream = { kind: 'up', socket, received: 0 }
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
    const lines = text.split('\n')
    text = lines.pop()!
    const last = lines.at(-1)
    if (last !== undefined) stream.received = Number(last)
  })
  const chunk = Buffer.alloc(256 * 1024, 0x55)
  const fill = () => {
    while (!socket.destroyed && socket.write(chunk));
  }
  socket.on('drain', fill)
  fill()
  return stream
}

async function exchange(socket: Socket, durationMs: number): Promise<number[]> {
  const times: number[] = []
  let missing = 0
  let arrived: () => void = () => undefined
  socket.on('data', (chunk) => {
    missing -= chunk.length
    if (missing <= 0) arrived()
  })
  const end = performance.now() + durationMs
  while (performance.now() < end) {
    const began = performance.now()
    missing = MESSAGE.length
    const answer = new Promise<void>((resolve) => {
      arrived = resolve
    })
    socket.write(MESSAGE)
    // One that takes for ever counts as what it has taken by then.
    await Promise.race([answer, sleep(PATIENCE_MS)])
    times.push(performance.now() - began)
    await sleep(PACE_MS)
  }
  return times
}

/** Pages one after the other, each with connections of its own, until the time is up; at least one. */
async function pages(plan: LoadPlan): Promise<number[]> {
  const times: number[] = []
  const end = performance.now() + plan.durationMs
  do {
    const began = performance.now()
    const first = await open(plan, 'get', 0)
    await get(first, DOCUMENT)
    const waiting = [...OBJECTS]
    const others = Array.from({ length: CONNECTIONS - 1 }, () => open(plan, 'get', 0))
    await Promise.all(
      [Promise.resolve(first), ...others].map(async (opening) => {
        const socket = await opening
        for (let size = waiting.shift(); size !== undefined; size = waiting.shift()) await get(socket, size)
        socket.destroy()
      }),
    )
    times.push(performance.now() - began)
  } while (performance.now() < end)
  return times
}

async function get(socket: Socket, size: number): Promise<void> {
  let missing = size
  await new Promise<void>((resolve) => {
    const take = (chunk: Buffer) => {
      missing -= chunk.length
      if (missing > 0) return
      socket.off('data', take)
      resolve()
    }
    socket.on('data', take)
    socket.write(`${size}\n`)
  })
}

async function open(plan: LoadPlan, service: string, index: number): Promise<Socket> {
  const { proxy } = plan
  const target =
    proxy === undefined ? { host: plan.server, port: plan.port } : { host: proxy.address, port: proxy.port }
  const socket = connect({ ...target, noDelay: true })
  socket.on('error', (error) => {
    process.stderr.write(`load: ${error.message}\n`)
    process.exit(1)
  })
  await once(socket, 'connect')
  if (proxy !== undefined) await socks(socket, plan, proxy.isolate ? `stream${index}` : 'all')
  socket.write(`${service}\n`)
  return socket
}

/** SOCKS5 with a user name (RFC 1928, RFC 1929), by which tor keeps streams on circuits of their own. */
async function socks(socket: Socket, plan: LoadPlan, user: string): Promise<void> {
  const name = Buffer.from(user)
  socket.write(Buffer.from([5, 1, 2]))
  await read(socket, 2)
  socket.write(Buffer.concat([Buffer.from([1, name.length]), name, Buffer.from([1, 0x78])]))
  await read(socket, 2)
  const address = plan.server.split('.').map(Number)
  socket.write(Buffer.from([5, 1, 0, 1, ...address, plan.port >> 8, plan.port & 255]))
  const reply = await read(socket, 10)
  if (reply[1] !== 0) throw new Error(`the proxy refused: ${reply[1]}`)
}

/** Exactly so many octets; what follows stays in the socket. */
async function read(socket: Socket, length: number): Promise<Buffer> {
  for (;;) {
    const chunk = socket.read(length) as Buffer | null
    if (chunk !== null) return chunk
    await once(socket, 'readable')
  }
}

const text = process.argv[2]
if (text !== undefined) {
  process.stdout.write(JSON.stringify(await main(JSON.parse(text) as LoadPlan)), () => process.exit())
}
