/**
 * Any web server with a copy of documents: `node document-server.ts ADDRESS PORT FOLDER` hands out the files `consensus` and
 * `bootstrap` of the folder, as they are at the time, and knows nothing about them.
 */
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'

const [address, port, folder] = process.argv.slice(2) as [string, string, string]

createServer((request, reply) => {
  const name = /^\/v1\/(consensus|bootstrap)$/.exec(request.url ?? '')?.[1]
  try {
    if (request.method !== 'GET' || name === undefined) throw new Error('there is no such thing')
    reply.end(readFileSync(join(folder, name)))
  } catch {
    reply.writeHead(404).end()
  }
}).listen(Number(port), address, () => process.stdout.write('ready\n'))
