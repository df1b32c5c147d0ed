/**
 * The relay whose rate is measured: `node bench/parallel/relay.ts OPTIONS` with a plane's options and a cipher as
 * JSON; says `ready`, and at SIGUSR1 what it dropped. Its sockets hold a whole burst, for it is stopped while they are filled.
 */
import { readdirSync, readlinkSync } from 'node:fs'
import type { EspCipher } from '#crypto/suites'
import { C, getOption, setOption } from '#linux/ffi'
import { UserPlane, type UserPlaneOptions } from '#linux/user-plane'
import { relayOperations } from './circuits.ts'

/** asm-generic/socket.h */
const SO_TYPE = 3
const BURST_BUFFER = 256 * 1024 * 1024

const { cipher, ...options } = JSON.parse(process.argv[2]!) as UserPlaneOptions & { cipher: EspCipher }
const plane = new UserPlane(options)
plane.onFailure((error) => {
  process.stderr.write(`relay: ${error.message}\n`)
  process.exit(1)
})
await plane.open()
await plane.apply(relayOperations(cipher))
for (const fd of readdirSync('/proc/self/fd').map(Number)) {
  if (!isRawSocket(fd)) continue
  setOption(fd, C.SOL_SOCKET, C.SO_RCVBUFFORCE, BURST_BUFFER, 'SO_RCVBUFFORCE')
}
process.on('SIGUSR1', async () => {
  const drops = Object.entries(await plane.drops()).filter(([, count]) => count > 0)
  process.stdout.write(`${JSON.stringify(Object.fromEntries(drops))}\n`)
})
process.stdout.write('ready\n')
// A profile (--cpu-prof) is written when the workers have ended.
process.once('SIGTERM', async () => {
  await plane.close()
  process.exit()
})
setInterval(() => undefined, 60_000)

function isRawSocket(fd: number): boolean {
  try {
    return (
      readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:') &&
      getOption(fd, C.SOL_SOCKET, SO_TYPE, 'SO_TYPE') === C.SOCK_RAW
    )
  } catch (error) {
    // The descriptor of the listing itself is gone by now.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}
