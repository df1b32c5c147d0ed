/**
 * The control socket: a Unix stream socket with mode 0600, one JSON object per line.
 *
 *     request  {"method":"status","params":{}}
 *     answer   {"ok":true,"result":{...}}
 *     or       {"ok":false,"error":{"code":"IPP_...","message":"one line","where":"..."}}
 *
 * Requests on one connection are answered in order.
 */
import { mkdir, stat, unlink } from 'node:fs/promises'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { ERRORS, type ErrorCode, errorLine, IpprivError } from '#base/errors'

export type ControlHandler = (params: Record<string, unknown>) => unknown
/** By method name. What a handler returns or resolves to is the result; what it throws is the error. */
export type ControlHandlers = Readonly<Record<string, ControlHandler>>

export interface ControlServer {
  /** Ends every connection and removes the socket. */
  close(): Promise<void>
}

const LINE_LIMIT = 64 * 1024
const CONNECTION_LIMIT = 32
/** Lines one connection may have waiting. */
const QUEUE_LIMIT = 16

/**
 * Listens. The socket that a killed daemon left behind is replaced. Handlers may be promised: requests wait for them.
 * @throws IpprivError IPP_CONTROL_BUSY when a daemon answers there, IPP_STATE_UNUSABLE when it cannot be created.
 */
export async function serveControl(
  path: string,
  handlers: ControlHandlers | Promise<ControlHandlers>,
): Promise<ControlServer> {
  const connections = new Set<Socket>()
  const server = createServer((socket) => {
    connections.add(socket)
    socket.on('close', () => connections.delete(socket))
    serveConnection(socket, handlers)
  })
  server.maxConnections = CONNECTION_LIMIT
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o755 })
    await listen(server, path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw unusable(path, error)
    if (await answers(path)) throw new IpprivError('IPP_CONTROL_BUSY', path)
    try {
      await unlink(path)
      await listen(server, path)
    } catch (again) {
      throw unusable(path, again)
    }
  }
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of connections) socket.destroy()
      }),
  }
}

/**
 * One request.
 * @param timeout milliseconds until the answer must be there.
 * @throws IpprivError IPP_CONTROL_UNREACHABLE, IPP_HOST_PRIVILEGE, or whatever the daemon answered.
 */
export function controlRequest(
  path: string,
  method: string,
  params: Record<string, unknown> = {},
  timeout = 120_000,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path)
    const unreachable = (why: string) => reject(new IpprivError('IPP_CONTROL_UNREACHABLE', `${path}: ${why}`))
    const timer = setTimeout(() => {
      unreachable(`no answer within ${timeout / 1000} s`)
      socket.destroy()
    }, timeout)
    socket.on('connect', () => socket.write(`${JSON.stringify({ method, params })}\n`))
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EACCES')
        reject(new IpprivError('IPP_HOST_PRIVILEGE', `${path} belongs to another user`, { cause: error }))
      else unreachable(error.code ?? error.message)
    })
    socket.on('close', () => {
      clearTimeout(timer)
      unreachable('the daemon closed the connection')
    })
    readLines(socket, Number.POSITIVE_INFINITY, (line) => {
      try {
        resolve(resultOf(JSON.parse(line ?? '')))
      } catch (error) {
        reject(
          error instanceof IpprivError ? error : new IpprivError('IPP_INTERNAL', 'the answer is no JSON'),
        )
      }
      socket.end()
      return true
    })
  })
}

function resultOf(answer: unknown): unknown {
  const { ok, result, error } = answer as { ok?: unknown; result?: unknown; error?: Record<string, unknown> }
  if (ok === true) return result
  const code = String(error?.code)
  const known = Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'IPP_INTERNAL'
  throw new IpprivError(known, String(error?.where ?? error?.message ?? code))
}

/** Binds with a umask, so that there is no moment in which others may connect. */
function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const before = process.umask(0o177)
    try {
      server.once('error', reject)
      server.listen(path, () => {
        server.removeListener('error', reject)
        resolve()
      })
    } finally {
      process.umask(before)
    }
  })
}

const unusable = (path: string, error: unknown): IpprivError =>
  new IpprivError('IPP_STATE_UNUSABLE', `control socket ${path}: ${(error as Error).message}`, {
    cause: error,
  })

/** Does somebody listen there? A file that is no socket counts as busy: it is not ours to remove. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', async (error: NodeJS.ErrnoException) => {
      resolve(error.code !== 'ENOENT' && !(error.code === 'ECONNREFUSED' && (await isSocket(path))))
    })
  })
}

const isSocket = async (path: string): Promise<boolean> => (await stat(path)).isSocket()

function serveConnection(socket: Socket, handlers: ControlHandlers | Promise<ControlHandlers>): void {
  const queue: string[] = []
  let busy = false
  const work = async () => {
    if (busy) return
    busy = true
    for (let line = queue.shift(); line !== undefined; line = queue.shift()) {
      const answer = await answerTo(line, await handlers)
      if (socket.destroyed) break
      socket.write(`${JSON.stringify(answer)}\n`)
    }
    busy = false
  }
  // A peer that goes away is its own business; 'close' follows.
  socket.on('error', () => socket.destroy())
  readLines(socket, LINE_LIMIT, (line) => {
    if (line === undefined || queue.length >= QUEUE_LIMIT) {
      socket.end(
        `${JSON.stringify(failureOf(new IpprivError('IPP_CONFIG_INVALID', 'the request is too long')))}\n`,
      )
      return false
    }
    queue.push(line)
    void work()
    return true
  })
}

async function answerTo(line: string, handlers: ControlHandlers): Promise<object> {
  try {
    const { method, params } = parseRequest(line)
    if (!Object.hasOwn(handlers, method))
      throw new IpprivError(
        'IPP_CONFIG_INVALID',
        `method: expected one of ${Object.keys(handlers).join(', ')}, found ${JSON.stringify(method.slice(0, 60))}`,
      )
    return { ok: true, result: (await handlers[method]!(params)) ?? {} }
  } catch (error) {
    return failureOf(error)
  }
}

function parseRequest(line: string): { method: string; params: Record<string, unknown> } {
  let request: unknown
  try {
    request = JSON.parse(line)
  } catch {
    request = undefined
  }
  const { method, params = {} } = (isObject(request) ? request : {}) as Record<string, unknown>
  if (typeof method !== 'string' || !isObject(params))
    throw new IpprivError('IPP_CONFIG_INVALID', 'expected a line {"method":"...","params":{...}}')
  return { method, params }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function failureOf(error: unknown): object {
  if (error instanceof IpprivError)
    return { ok: false, error: { code: error.code, message: error.message, where: error.where } }
  return { ok: false, error: { code: 'IPP_INTERNAL', message: errorLine(error), where: errorLine(error) } }
}

/** Calls back per line, with undefined for one that is longer than `limit`; false from the callback ends reading. */
function readLines(socket: Socket, limit: number, onLine: (line: string | undefined) => boolean): void {
  let pending = ''
  let reading = true
  socket.setEncoding('utf8')
  socket.on('data', (text: string) => {
    if (!reading) return
    pending += text
    let end = pending.indexOf('\n')
    for (; reading && end >= 0; end = pending.indexOf('\n')) {
      const line = pending.slice(0, end)
      pending = pending.slice(end + 1)
      if (line.length > limit) reading = onLine(undefined)
      else if (line.trim() !== '') reading = onLine(line)
    }
    if (reading && pending.length > limit) reading = onLine(undefined)
  })
}
