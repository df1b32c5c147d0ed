/** sd_notify(3): tells the supervisor that the daemon is ready, or stops. */
import { Arena, C, failure, sys } from '#linux/ffi'

const AF_UNIX = 1
/** struct sockaddr_un: family 2, path 108 (unix(7)). */
const PATH_AT = 2
const PATH_LENGTH = 108

export type SupervisorState = 'READY=1' | 'STOPPING=1' | `STATUS=${string}`

/**
 * Sends one datagram to `NOTIFY_SOCKET`; does nothing without a supervisor.
 * @throws IpprivError IPP_HOST_* when the supervisor's socket cannot be reached.
 */
export async function notifySupervisor(
  state: SupervisorState,
  socketPath: string | undefined = process.env.NOTIFY_SOCKET,
): Promise<void> {
  if (socketPath === undefined || socketPath === '') return
  const name = new TextEncoder().encode(socketPath)
  const message = new TextEncoder().encode(state)
  if (name.length >= PATH_LENGTH || message.length > MESSAGE_LENGTH)
    throw new RangeError('NOTIFY_SOCKET or the message is too long')
  memory ??= new Arena(PATH_AT + PATH_LENGTH + MESSAGE_LENGTH)
  memory.bytes.fill(0)
  memory.view.setUint16(0, AF_UNIX, true)
  memory.bytes.set(name, PATH_AT)
  // `@name` is a socket in the abstract name space: its first octet is zero.
  if (socketPath.startsWith('@')) memory.bytes[PATH_AT] = 0
  memory.bytes.set(message, PATH_AT + PATH_LENGTH)
  const fd = sys.socket(AF_UNIX, C.SOCK_DGRAM | C.SOCK_CLOEXEC, 0)
  if (fd < 0) throw failure('socket(AF_UNIX)')
  try {
    if (sys.connect(fd, memory.address, PATH_AT + name.length) < 0) throw failure(`connect ${socketPath}`)
    if (sys.write(fd, memory.address + PATH_AT + PATH_LENGTH, message.length) < 0)
      throw failure(`write ${socketPath}`)
  } finally {
    sys.close(fd)
  }
}

const MESSAGE_LENGTH = 256
/** One for the life of the process, as ffi.ts demands. */
let memory: Arena | undefined
