/**
 * The server of the load: `node bench/load-server.ts ADDRESS PORT`. A connection begins with one line:
 *
 *     down         octets until the other side closes
 *     up           takes octets, and says every 50 ms how many there were so far, as a line
 *     echo         gives back what it gets
 *     get          then lines with a number each, answered by so many octets each
 */
import { createServer, type Socket } from 'node:net'

const CHUNK = Buffer.alloc(256 * 1024, 0x5a)
const REPORT_MS = 50

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => socket.destroy())
  socket.once('data', (first) => {
    const end = first.indexOf(10)
    const rest = first.subarray(end + 1)
    const serve = SERVICES[first.subarray(0, Math.max(0, end)).toString()]
    if (serve === undefined) socket.destroy()
    else serve(socket, rest)
  })
})

const SERVICES: Readonly<Record<string, (socket: Socket, rest: Buffer) => void>> = {
  down(socket) {
    const fill = () => {
      while (!socket.destroyed && socket.write(CHUNK));
    }
    socket.on('drain', fill)
    socket.resume()
    fill()
  },
  up(socket, rest) {
    let total = rest.length
    const timer = setInterval(() => socket.write(`${total}\n`), REPORT_MS)
    socket.on('data', (chunk) => {
      total += chunk.length
    })
    socket.on('close', () => clearInterval(timer))
  },
  echo(socket, rest) {
    socket.write(rest)
    socket.on('data', (chunk) => socket.write(chunk))
  },
  get(socket, rest) {
    let text = ''
    const take = (chunk: Buffer) => {
      text += chunk.toString('latin1')
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        send(socket, Number(text.slice(0, end)))
        text = text.slice(end + 1)
      }
    }
    socket.on('data', take)
    take(rest)
  },
}

function send(socket: Socket, octets: number): void {
  if (!(octets >= 0 && octets <= 16 * 1024 * 1024)) return void socket.destroy()
  for (let left = octets; left > 0; left -= CHUNK.length)
    socket.write(CHUNK.subarray(0, Math.min(left, CHUNK.length)))
}

const [address, port] = process.argv.slice(2)
server.listen(Number(port), address, () => process.stdout.write('ready\n'))
