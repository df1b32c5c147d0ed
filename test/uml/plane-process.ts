/**
 * A kernel data plane in a process of its own, driven by one JSON object per line, so that a test can have
 * several in different namespaces, and kill one.
 */
import { createInterface } from 'node:readline'
import { fromHex } from '#base/bytes'
import { errorLine, IpprivError } from '#base/errors'
import type { Ip } from '#base/ip'
import { NAT_T_PORT } from '#linux/esp-socket'
import { UdpSockets } from '#linux/sockets'
import { XfrmPlane } from '#linux/xfrm-plane'
import type { PlaneOperation } from '#telescope/plane'

const plane = new XfrmPlane({
  device: 'ippriv0',
  keepGuard: process.argv.includes('--keep-guard'),
  adopt: process.argv.includes('--adopt'),
})
const sockets = new UdpSockets()
plane.onHeard((sa) => say({ heard: sa }))
plane.onFailure((error) => say({ failure: error.message }))

interface Call {
  readonly method: 'open' | 'apply' | 'inventory' | 'counters' | 'drops' | 'close' | 'listen'
  readonly address?: Ip
  readonly operations?: readonly PlaneOperation[]
}

for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line, (key, value) => (key === 'key' ? fromHex(value as string) : value)) as Call
  try {
    say({ result: (await perform(call)) ?? null })
  } catch (error) {
    const code = error instanceof IpprivError ? error.code : 'IPP_INTERNAL'
    say({ error: { code, line: errorLine(error) } })
  }
}

async function perform(call: Call): Promise<unknown> {
  if (call.method === 'apply') return plane.apply(call.operations ?? [])
  if (call.method === 'inventory') return plane.inventory
  return call.method === 'listen' ? listen(call.address!) : plane[call.method]()
}

/** As a daemon does: only where a socket says so the kernel takes ESP out of UDP. */
async function listen(address: Ip): Promise<void> {
  sockets.listen({ address, port: NAT_T_PORT })
  sockets.takeEspInUdp()
}

function say(message: object): void {
  process.stdout.write(`${JSON.stringify(message)}\n`)
}
