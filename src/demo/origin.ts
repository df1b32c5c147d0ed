/**
 * The ordinary server on the demo's Internet: `node src/demo/origin.ts ADDRESS`. It knows nothing of IPpriv.
 *
 *     HTTP  80    /           a small page        /file?octets=N  `content(N)`
 *                 /whoami     the address the request came from
 *     UDP   7007  echo
 *     DNS   53    A www.example.test, TXT whoami.example.test (the address of the asker)
 *
 * Writes one JSON line per request to stdout: `{"service","from","what"}`, and `{"service":"ready"}` first.
 */
import { createSocket, type Socket } from 'node:dgram'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { decode, encode, type Packet, RECURSION_DESIRED } from 'dns-packet'
import {
  content,
  DNS_PORT,
  ECHO_PORT,
  HTTP_PORT,
  MEBIBYTE,
  PAGE_MARK,
  WEB_NAME,
  WHOAMI_NAME,
} from '#demo/content'

async function main(address: string): Promise<void> {
  const http = createServer((request, response) => void answer(request, response))
  const echo = createSocket('udp4')
  echo.on('message', (datagram, from) => {
    record('udp', from.address, `${datagram.length} octets`)
    echo.send(datagram, from.port, from.address)
  })
  const dns = createSocket('udp4')
  dns.on('message', (datagram, from) => {
    const reply = resolveName(datagram, address, from.address)
    if (reply !== undefined) dns.send(reply, from.port, from.address)
  })
  await Promise.all([
    new Promise<void>((resolve, reject) => {
      http.once('error', reject)
      http.listen(HTTP_PORT, address, resolve)
    }),
    bind(echo, ECHO_PORT, address),
    bind(dns, DNS_PORT, address),
  ])
  record('ready', address, 'listening')
  const stop = () => {
    http.close()
    http.closeAllConnections()
    echo.close()
    dns.close()
  }
  process.once('SIGTERM', stop)
  process.once('SIGINT', stop)
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const from = request.socket.remoteAddress ?? ''
  const url = new URL(request.url ?? '/', 'http://origin')
  record('http', from, url.pathname + url.search)
  if (url.pathname === '/') {
    const page = `<!doctype html><title>example</title><h1>An ordinary web server</h1><p>${PAGE_MARK}</p>\n`
    response.writeHead(200, { 'content-type': 'text/html', 'content-length': page.length }).end(page)
  } else if (url.pathname === '/whoami') {
    response.writeHead(200, { 'content-type': 'text/plain' }).end(`${from}\n`)
  } else if (url.pathname === '/file') {
    const octets = Number(url.searchParams.get('octets') ?? 64 * MEBIBYTE)
    if (!Number.isSafeInteger(octets) || octets < 0 || octets > 4096 * MEBIBYTE) {
      response.writeHead(400).end()
      return
    }
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': octets })
    try {
      await pipeline(Readable.from(content(octets), { objectMode: false }), response)
    } catch (error) {
      record('http', from, `download ended early: ${(error as Error).message}`)
    }
  } else {
    response.writeHead(404).end()
  }
}

/** The reply to one query, or undefined when it is not one. */
function resolveName(datagram: Uint8Array, address: string, from: string): Uint8Array | undefined {
  let query: Packet
  try {
    query = decode(Buffer.from(datagram))
  } catch {
    record('dns', from, 'malformed')
    return undefined
  }
  const question = query.questions?.[0]
  if (question === undefined || query.type === 'response') return undefined
  record('dns', from, `${question.type} ${question.name}`)
  const head = {
    type: 'response' as const,
    id: query.id ?? 0,
    flags: (query.flags ?? 0) & RECURSION_DESIRED,
    questions: [question],
  }
  const name = question.name
  if (name === WEB_NAME && question.type === 'A')
    return encode({ ...head, answers: [{ type: 'A', name, ttl: 60, data: address }] })
  if (name === WHOAMI_NAME && question.type === 'TXT')
    return encode({ ...head, answers: [{ type: 'TXT', name, ttl: 0, data: from }] })
  return encode({ ...head, flags: head.flags | NXDOMAIN })
}

// RFC 1035 section 4.1.1, RCODE 3.
const NXDOMAIN = 3

function bind(socket: Socket, port: number, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.bind(port, address, () => {
      // An ICMP error to one answer must not end the service for others.
      socket.removeListener('error', reject)
      socket.on('error', (error) => record('udp', address, error.message))
      resolve()
    })
  })
}

function record(service: string, from: string, what: string): void {
  process.stdout.write(`${JSON.stringify({ service, from, what })}\n`)
}

try {
  await main(process.argv[2] ?? '0.0.0.0')
} catch (error) {
  process.stderr.write(`origin: ${(error as Error).message}\n`)
  process.exitCode = 1
}
