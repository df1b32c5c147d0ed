/**
 * A download without an end, and what interrupts it, as programs of their own:
 *
 *     steady.ts serve ADDRESS PORT RATE   sends octets at RATE per second (0: as fast as it can) until told to stop
 *     steady.ts fetch ADDRESS PORT [FROM] receives them; `mark` and `stop` on standard input
 *
 * `fetch` answers a `mark` with the longest time without progress since the last one, and `stop` with what it got.
 * Both ends hash what passes: `serve` says its digest after the last octet.
 */
import { createHash } from 'node:crypto'
import { connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { content } from '#demo/content'

export interface Received {
  readonly octets: number
  readonly sha256: string
}

export interface Progress {
  readonly octets: number
  /** Milliseconds. */
  readonly longest: number
  /** When that began, in milliseconds since 1970. */
  readonly since: number
}

const PIECE = 32 * 1024
const UNENDING = Number.MAX_SAFE_INTEGER

const [role, address, port, extra] = process.argv.slice(2) as [string, string, string, string?]
if (role === 'serve') serve()
else if (role === 'fetch') fetch()

function serve(): void {
  createServer((socket) => void send(socket, Number(extra))).listen(Number(port), address, () =>
    say({ ready: true }),
  )
}

async function send(socket: Socket, rate: number): Promise<void> {
  const hash = createHash('sha256')
  let isAsked = false
  socket.on('data', () => {
    isAsked = true
  })
  socket.on('error', (error) => say({ error: error.message }))
  const began = performance.now()
  let octets = 0
  for (const chunk of content(UNENDING)) {
    for (let at = 0; at < chunk.length && !isAsked; at += PIECE) {
      const piece = chunk.subarray(at, at + PIECE)
      hash.update(piece)
      octets += piece.length
      const due = rate === 0 ? 0 : began + (1000 * octets) / rate - performance.now()
      const isFull = !socket.write(piece)
      if (isFull) await new Promise((done) => socket.once('drain', done))
      if (due > 0) await new Promise((done) => setTimeout(done, due))
    }
    if (isAsked || socket.destroyed) break
  }
  socket.end()
  say({ octets, sha256: hash.digest('hex') })
}

function fetch(): void {
  const hash = createHash('sha256')
  const socket = connect({ host: address, port: Number(port), ...(extra ? { localAddress: extra } : {}) })
  let octets = 0
  let last = performance.now()
  let longest = 0
  let since = 0
  const look = (): void => {
    const pause = performance.now() - last
    if (pause < longest) return
    longest = pause
    since = Date.now() - pause
  }
  socket.on('data', (chunk) => {
    look()
    last = performance.now()
    hash.update(chunk)
    octets += chunk.length
  })
  socket.on('error', (error) => say({ error: error.message }))
  socket.on('close', () => {
    say({ octets, sha256: hash.digest('hex') })
    process.exit()
  })
  createInterface({ input: process.stdin }).on('line', (line) => {
    if (line === 'stop') return void socket.write('stop')
    look()
    say({ octets, longest: Math.round(longest), since: Math.round(since) })
    longest = 0
  })
}

function say(message: object): void {
  process.stdout.write(`${JSON.stringify(message)}\n`)
}
