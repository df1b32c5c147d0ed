/**
 * An ordinary program on the client: `node src/demo/probe.ts PLAN`, PLAN being JSON, an array of `Probe`.
 * All are made at once; stdout gets one JSON array of `ProbeResult` in the same order. Knows nothing of IPpriv.
 */
import { createSocket } from 'node:dgram'
import { connect } from 'node:net'
import { decode, encode } from 'dns-packet'

export type Probe =
  /** `count` datagrams, one every `intervalMs`; each must come back. */
  | {
      readonly kind: 'echo'
      readonly to: string
      readonly port: number
      readonly from?: string
      readonly count: number
      readonly intervalMs: number
    }
  | {
      readonly kind: 'dns'
      readonly server: string
      readonly port: number
      readonly name: string
      readonly type: 'A' | 'TXT'
      readonly from?: string
      /** Queries sent before giving up, two seconds apart. */
      readonly attempts: number
    }
  /** One TCP connection attempt, given up after `timeoutMs`. */
  | {
      readonly kind: 'connect'
      readonly to: string
      readonly port: number
      readonly from?: string
      readonly timeoutMs: number
    }

export interface ProbeResult {
  readonly sent: number
  readonly received: number
  /** Answers of a DNS look-up, as text. */
  readonly answers: readonly string[]
  /** Local failures (no address, no route, refused by a filter), each once. */
  readonly errors: readonly string[]
}

/** How long an answer may take. */
const PATIENCE_MS = 2_000

async function main(plan: readonly Probe[]): Promise<void> {
  const results = await Promise.all(
    plan.map((probe) =>
      probe.kind === 'echo' ? echo(probe) : probe.kind === 'dns' ? lookUp(probe) : attempt(probe),
    ),
  )
  process.stdout.write(`${JSON.stringify(results)}\n`)
}

async function echo(probe: Probe & { kind: 'echo' }): Promise<ProbeResult> {
  const errors = new Set<string>()
  const returned = new Set<string>()
  const socket = createSocket('udp4', (datagram) => returned.add(datagram.toString()))
  socket.on('error', (error) => errors.add(error.message))
  const tag = Math.random().toString(36).slice(2)
  if (!(await bind(socket, probe.from, errors)))
    return { sent: 0, received: 0, answers: [], errors: [...errors] }
  for (let i = 0; i < probe.count; i++) {
    socket.send(`${tag} ${i}`, probe.port, probe.to, (error) => {
      if (error !== null) errors.add(error.message)
    })
    await pause(probe.intervalMs)
  }
  const deadline = performance.now() + PATIENCE_MS
  while (returned.size < probe.count && performance.now() < deadline) await pause(20)
  socket.close()
  return { sent: probe.count, received: returned.size, answers: [], errors: [...errors] }
}

async function lookUp(probe: Probe & { kind: 'dns' }): Promise<ProbeResult> {
  const errors = new Set<string>()
  const answers: string[] = []
  const id = Math.floor(Math.random() * 65536)
  let answered = false
  const socket = createSocket('udp4', (datagram) => {
    const reply = decode(datagram)
    if (reply.id !== id) return
    answered = true
    for (const answer of reply.answers ?? []) if ('data' in answer) answers.push(String(answer.data))
  })
  socket.on('error', (error) => errors.add(error.message))
  if (!(await bind(socket, probe.from, errors))) return { sent: 0, received: 0, answers, errors: [...errors] }
  const questions = [{ type: probe.type, name: probe.name, class: 'IN' as const }]
  const query = encode({ type: 'query', id, flags: 0x0100, questions })
  let sent = 0
  while (sent < probe.attempts && !answered) {
    socket.send(query, probe.port, probe.server, (error) => {
      if (error !== null) errors.add(error.message)
    })
    sent++
    const deadline = performance.now() + PATIENCE_MS
    while (!answered && performance.now() < deadline) await pause(10)
  }
  socket.close()
  return { sent, received: answered ? 1 : 0, answers, errors: [...errors] }
}

function attempt(probe: Probe & { kind: 'connect' }): Promise<ProbeResult> {
  return new Promise((resolve) => {
    const options = {
      host: probe.to,
      port: probe.port,
      ...(probe.from === undefined ? {} : { localAddress: probe.from }),
    }
    const socket = connect(options)
    const finish = (received: number, ...errors: string[]) => {
      clearTimeout(timer)
      socket.destroy()
      resolve({ sent: 1, received, answers: [], errors })
    }
    const timer = setTimeout(() => finish(0, 'no answer'), probe.timeoutMs)
    socket.once('connect', () => finish(1))
    socket.once('error', (error) => finish(0, error.message))
  })
}

function bind(
  socket: ReturnType<typeof createSocket>,
  from: string | undefined,
  errors: Set<string>,
): Promise<boolean> {
  return new Promise((resolve) => {
    const failed = (error: Error) => {
      errors.add(error.message)
      socket.close()
      resolve(false)
    }
    socket.once('error', failed)
    socket.bind(0, from ?? '0.0.0.0', () => {
      socket.removeListener('error', failed)
      resolve(true)
    })
  })
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

if (import.meta.main) await main(JSON.parse(process.argv[2] ?? '[]') as Probe[])
