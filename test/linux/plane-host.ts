/**
 * A process that owns one UserPlane, for tests that need several hosts: JSON lines `{call, argument}` on stdin,
 * one JSON line `{result}` or `{error}` for each on stdout. Octets travel as hex in `key`. The argument is the
 * plane's options, as JSON.
 */
import { createInterface } from 'node:readline'
import { fromHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import type { UdpEndpoint } from '#base/ip'
import { UdpSockets } from '#linux/sockets'
import { UserPlane, type UserPlaneOptions } from '#linux/user-plane'
import type { PlaneOperation } from '#telescope/plane'

const plane = new UserPlane(JSON.parse(process.argv[2] ?? '{}') as UserPlaneOptions)
const sockets = new UdpSockets()
let datagrams = 0
sockets.onDatagram(() => {
  datagrams++
})
const heard: number[] = []
plane.onHeard(({ spi }) => heard.push(spi))
plane.onFailure((error) => console.log(JSON.stringify({ failure: error.message })))

async function call(name: string, argument: unknown): Promise<unknown> {
  switch (name) {
    case 'open':
      return plane.open()
    case 'apply':
      return plane.apply(argument as PlaneOperation[])
    case 'counters':
      return plane.counters()
    case 'drops':
      return plane.drops()
    case 'close':
      return plane.close()
    case 'listen':
      return sockets.listen(argument as UdpEndpoint)
    case 'heard':
      return heard
    case 'datagrams':
      return datagrams
    case 'exit':
      return process.exit(0)
    default:
      throw new Error(`no such call: ${name}`)
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line, (field, value) => (field === 'key' ? fromHex(value) : value))
  try {
    console.log(JSON.stringify({ result: (await call(request.call, request.argument)) ?? null }))
  } catch (error) {
    const code = error instanceof IpprivError ? error.code : 'IPP_INTERNAL'
    console.log(JSON.stringify({ error: code, where: (error as Error).message }))
  }
}
