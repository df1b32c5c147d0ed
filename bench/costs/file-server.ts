/**
 * Files of any size, over HTTP and HTTPS: `node bench/costs/file-server.ts ADDRESS HTTP-PORT HTTPS-PORT KEY CERT`.
 * `GET /N` is answered with N octets.
 */
import { readFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createSecureServer } from 'node:https'

const CHUNK = Buffer.alloc(256 * 1024, 0x5a)

const [address, http, https, key, cert] = process.argv.slice(2) as [string, string, string, string, string]

const serve: RequestListener = (request, response) => {
  let missing = Number(request.url!.slice(1))
  if (!Number.isSafeInteger(missing)) return void response.writeHead(400).end()
  response.writeHead(200, { 'content-length': missing })
  const fill = () => {
    while (missing > 0) {
      const size = Math.min(missing, CHUNK.length)
      missing -= size
      if (!response.write(CHUNK.subarray(0, size)) && missing > 0) return void response.once('drain', fill)
    }
    response.end()
  }
  fill()
}

createServer(serve).listen(Number(http), address)
createSecureServer({ key: readFileSync(key), cert: readFileSync(cert) }, serve).listen(
  Number(https),
  address,
  () => process.stdout.write('ready\n'),
)
