import { createSocket, type Socket as DatagramSocket } from 'node:dgram'
import { Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { getSystemErrorName } from 'node:util'
import { IpprivError } from '#base/errors'
import { type Ip, parseIp, type UdpEndpoint, type UdpPath } from '#base/ip'
import { NAT_T_PORT } from '#linux/esp-socket'
import type { FilterInstruction } from '#linux/ffi'
import {
  attachFilter,
  C,
  E,
  errno,
  failure,
  getOption,
  setOption,
  sys,
  whenWritable,
  withEndpoint,
} from '#linux/ffi'
import { DAEMON_MARK } from '#nat/rules'

/**
 * The sockets of the daemon itself. All carry `DAEMON_MARK`, by which the client's guard tells them from the sockets
 * of applications. They are made by hand because Node cannot set the mark before the first packet leaves.
 */

export type DatagramListener = (path: UdpPath, bytes: Uint8Array) => void

/** Room for a burst of IKE_SA_INIT while the engine works. */
const RECEIVE_BUFFER = 4 * 1024 * 1024
const CONNECT_PATIENCE = 10_000

/** UDP sockets by local end point, each opened when first needed. */
export class UdpSockets {
  readonly #sockets = new Map<string, OpenSocket>()
  #kernelTakesEsp = false
  readonly #listeners: DatagramListener[] = []
  readonly #failureListeners: ((error: IpprivError) => void)[] = []

  onDatagram(listener: DatagramListener): void {
    this.#listeners.push(listener)
  }

  /** Called for every datagram that could not be sent. */
  onFailure(listener: (error: IpprivError) => void): void {
    this.#failureListeners.push(listener)
  }

  /**
   * Receives on an end point from now on. Harmless when it is open.
   * @throws IpprivError IPP_HOST_PORT_IN_USE, IPP_HOST_ADDRESS, IPP_HOST_PRIVILEGE
   */
  listen(local: UdpEndpoint): void {
    this.#open(local)
  }

  /**
   * From now on the kernel takes ESP in UDP for its own SAs (RFC 3948), at every socket of port 4500. For the plane of
   * the kernel alone: without an ESP of its own it would answer with ICMP errors. @throws IpprivError IPP_HOST_KERNEL
   */
  takeEspInUdp(): void {
    this.#kernelTakesEsp = true
    for (const open of this.#sockets.values()) takeEspInUdp(open)
  }

  /** Sends, like UDP does: what cannot be sent is lost, and told to `onFailure`. Never throws. */
  send(path: UdpPath, bytes: Uint8Array): void {
    try {
      const socket = this.#open(path.local)
      socket.send(bytes, path.remote.port, path.remote.address, (error) => {
        if (error !== null) this.#fail(asIpprivError(error))
      })
    } catch (error) {
      this.#fail(asIpprivError(error as Error))
    }
  }

  /** Closes every socket of a local address; a lent address must not be listened on after its circuit. */
  closeLocal(address: Ip): void {
    for (const [name, { local, socket }] of this.#sockets) {
      if (local.address !== address) continue
      this.#sockets.delete(name)
      socket.close()
    }
  }

  close(): void {
    for (const { socket } of this.#sockets.values()) socket.close()
    this.#sockets.clear()
  }

  #open(local: UdpEndpoint): DatagramSocket {
    const name = `${local.address}:${local.port}`
    const open = this.#sockets.get(name)
    if (open !== undefined) return open.socket
    const fd = boundSocket(local)
    if (this.#kernelTakesEsp) takeEspInUdp({ local, fd })
    const socket = createSocket('udp4')
    socket.on('error', (error) => this.#fail(asIpprivError(error)))
    socket.on('message', (bytes, { address, port }) => {
      // Port 0 cannot be answered.
      if (port === 0) return
      const path = { local, remote: { address: address as Ip, port } }
      for (const listener of this.#listeners) listener(path, bytes)
    })
    socket.bind({ fd })
    this.#sockets.set(name, { local, fd, socket })
    return socket
  }

  #fail(error: IpprivError): void {
    for (const listener of this.#failureListeners) listener(error)
  }
}

/** A TCP connection from a socket with the daemon's mark. @throws IpprivError IPP_HOST_*, IPP_DIR_UNREACHABLE */
export function markedTcpConnect(address: Ip, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const fd = markedSocket(C.SOCK_STREAM)
    const refuse = (error: Error) => {
      sys.close(fd)
      reject(error)
    }
    const where = `${address} port ${port}`
    if (withEndpoint(sys.connect, fd, address, port) < 0 && errno() !== E.inProgress)
      return refuse(failure(`connect to ${where}`))
    const timer = setTimeout(() => {
      stopWaiting()
      refuse(new IpprivError('IPP_DIR_UNREACHABLE', `${where} does not answer`))
    }, CONNECT_PATIENCE)
    const stopWaiting = whenWritable(fd, () => {
      clearTimeout(timer)
      const error = getOption(fd, C.SOL_SOCKET, C.SO_ERROR, 'SO_ERROR')
      if (error !== 0)
        return refuse(new IpprivError('IPP_DIR_UNREACHABLE', `${where}: ${getSystemErrorName(-error)}`))
      resolve(new Socket({ fd, readable: true, writable: true }))
    })
  })
}

/** What undici's `Agent({ connect })` calls, as far as we use it. */
export type Connector = (
  options: { hostname: string; protocol: string; port: string; servername?: string | null },
  callback: (...result: [error: Error, socket: null] | [error: null, socket: Socket]) => void,
) => void

/**
 * A connector for undici that uses marked sockets. It takes IPv4 literals only: to resolve a name would ask the
 * network about it outside the telescope.
 */
export function markedConnector(): Connector {
  return (options, callback) => {
    const address = parseIp(options.hostname)
    if (address === undefined) {
      callback(new IpprivError('IPP_HOST_ADDRESS', `${options.hostname} is not an IPv4 address`), null)
      return
    }
    const secure = options.protocol === 'https:'
    const port = Number(options.port) || (secure ? 443 : 80)
    markedTcpConnect(address, port).then(
      (socket) => {
        socket.setNoDelay(true)
        if (!secure) return callback(null, socket)
        const { servername } = options
        const tls = connectTls({ socket, ALPNProtocols: ['http/1.1'], ...(servername ? { servername } : {}) })
        const refuse = (error: Error) => callback(error, null)
        tls.once('error', refuse)
        tls.once('secureConnect', () => {
          tls.removeListener('error', refuse)
          callback(null, tls)
        })
      },
      (error: Error) => callback(error, null),
    )
  }
}

interface OpenSocket {
  readonly local: UdpEndpoint
  readonly fd: number
  readonly socket: DatagramSocket
}

function takeEspInUdp({ local, fd }: Pick<OpenSocket, 'local' | 'fd'>): void {
  if (local.port === NAT_T_PORT) setOption(fd, C.IPPROTO_UDP, C.UDP_ENCAP, C.UDP_ENCAP_ESPINUDP, 'UDP_ENCAP')
}

function boundSocket(local: UdpEndpoint): number {
  const fd = markedSocket(C.SOCK_DGRAM)
  try {
    // A path-MTU cache poisoned by forged ICMP must not decide whether IKE gets through: let the path fragment.
    setOption(fd, C.IPPROTO_IP, C.IP_MTU_DISCOVER, C.IP_PMTUDISC_DONT, 'IP_MTU_DISCOVER')
    if (local.port === NAT_T_PORT) attachFilter(fd, NON_ESP_ONLY)
    if (withEndpoint(sys.bind, fd, local.address, local.port) < 0)
      throw failure(`UDP ${local.address} port ${local.port}`)
    return fd
  } catch (error) {
    sys.close(fd)
    throw error
  }
}

function markedSocket(type: number): number {
  const fd = sys.socket(C.AF_INET, type | C.SOCK_NONBLOCK | C.SOCK_CLOEXEC, 0)
  if (fd < 0) throw failure('socket')
  try {
    setOption(fd, C.SOL_SOCKET, C.SO_MARK, DAEMON_MARK, 'SO_MARK')
    if (type === C.SOCK_DGRAM) setOption(fd, C.SOL_SOCKET, C.SO_RCVBUFFORCE, RECEIVE_BUFFER, 'SO_RCVBUFFORCE')
    return fd
  } catch (error) {
    sys.close(fd)
    throw error
  }
}

function asIpprivError(error: Error): IpprivError {
  if (error instanceof IpprivError) return error
  const code = (error as NodeJS.ErrnoException).code
  if (code === 'ENETUNREACH' || code === 'EHOSTUNREACH')
    return new IpprivError('IPP_HOST_ROUTE', `UDP: ${code}`, { cause: error })
  if (code === 'EPERM' || code === 'EACCES')
    return new IpprivError('IPP_HOST_PRIVILEGE', `UDP: ${code}: the packet filter refused it`, {
      cause: error,
    })
  return new IpprivError('IPP_HOST_KERNEL', `UDP: ${code ?? error.message}`, { cause: error })
}

/** Classic BPF over a UDP datagram: on the NAT-T port, ESP (no marker of four zero octets) goes to the plane only. */
const NON_ESP_ONLY: readonly FilterInstruction[] = [
  [0x20, 0, 0, 8], // ld [8], first four octets; a keepalive of one octet ends here: drop
  [0x15, 0, 1, 0], // jeq 0, else drop
  [0x06, 0, 0, 0xffff], // accept
  [0x06, 0, 0, 0], // drop
]
