import koffi from 'koffi'
import { IpprivError } from '#base/errors'
import type { Ip } from '#base/ip'
import { ipToBytes } from '#base/ip'

/**
 * Calls into libc and libcrypto, and every pointer of the program. Nobody else imports koffi.
 *
 * **Memory the kernel or libcrypto is given must never be collected: it comes from an `Arena`, and arenas live as
 * long as the thread.** Pointers are plain numbers (user addresses have 47 bits), so a call allocates nothing.
 */
const POINTER = 'uintptr_t'
const libc = koffi.load(null)
const { errno: ERRNO } = koffi.os

const int = (name: string, ...parameters: string[]) => libc.func(name, 'int', parameters)
const long = (name: string, ...parameters: string[]) => libc.func(name, 'long', parameters)

/** Plain calls: -1 and `errno()` on failure. */
export const sys = {
  socket: int('socket', 'int', 'int', 'int') as (domain: number, type: number, protocol: number) => number,
  bind: int('bind', 'int', POINTER, 'uint') as (fd: number, address: number, length: number) => number,
  connect: int('connect', 'int', POINTER, 'uint') as (fd: number, address: number, length: number) => number,
  setsockopt: int('setsockopt', 'int', 'int', 'int', POINTER, 'uint') as (
    fd: number,
    level: number,
    option: number,
    value: number,
    length: number,
  ) => number,
  getsockopt: int('getsockopt', 'int', 'int', 'int', POINTER, POINTER) as (
    fd: number,
    level: number,
    option: number,
    value: number,
    length: number,
  ) => number,
  ioctl: int('ioctl', 'int', 'ulong', POINTER) as (fd: number, request: number, argument: number) => number,
  poll: int('poll', POINTER, 'ulong', 'int') as (fds: number, count: number, timeout: number) => number,
  eventfd: int('eventfd', 'uint', 'int') as (initial: number, flags: number) => number,
  close: int('close', 'int') as (fd: number) => number,
  mknod: int('mknod', 'str', 'uint', 'ulong') as (path: string, mode: number, device: number) => number,
  read: long('read', 'int', POINTER, 'ulong') as (fd: number, buffer: number, length: number) => number,
  write: long('write', 'int', POINTER, 'ulong') as (fd: number, buffer: number, length: number) => number,
  writev: long('writev', 'int', POINTER, 'int') as (fd: number, vector: number, count: number) => number,
  recvmmsg: int('recvmmsg', 'int', POINTER, 'uint', 'int', POINTER) as (
    fd: number,
    messages: number,
    count: number,
    flags: number,
    timeout: number,
  ) => number,
  sendmmsg: int('sendmmsg', 'int', POINTER, 'uint', 'int') as (
    fd: number,
    messages: number,
    count: number,
    flags: number,
  ) => number,
}

export const errno = (): number => koffi.errno()
export const E = {
  again: ERRNO.EAGAIN!,
  interrupted: ERRNO.EINTR!,
  inProgress: ERRNO.EINPROGRESS!,
  inUse: ERRNO.EADDRINUSE!,
  notAvailable: ERRNO.EADDRNOTAVAIL!,
  permission: ERRNO.EPERM!,
  access: ERRNO.EACCES!,
  busy: ERRNO.EBUSY!,
} as const

/** Linux constants of the calls above (x86_64 and arm64 agree on all of them). */
export const C = {
  AF_INET: 2,
  SOCK_STREAM: 1,
  SOCK_DGRAM: 2,
  SOCK_RAW: 3,
  SOCK_NONBLOCK: 0x800,
  SOCK_CLOEXEC: 0x80000,
  SOL_SOCKET: 1,
  SO_ERROR: 4,
  SO_ATTACH_FILTER: 26,
  SO_SNDBUFFORCE: 32,
  SO_RCVBUFFORCE: 33,
  SO_MARK: 36,
  IPPROTO_IP: 0,
  IP_TOS: 1,
  IP_TTL: 2,
  IP_MTU_DISCOVER: 10,
  IP_PKTINFO: 8,
  IP_PMTUDISC_DONT: 0,
  IPPROTO_UDP: 17,
  UDP_ENCAP: 100,
  UDP_ENCAP_ESPINUDP: 2,
  MSG_DONTWAIT: 0x40,
  POLLIN: 1,
  POLLOUT: 4,
  EFD_NONBLOCK: 0x800,
  EFD_CLOEXEC: 0x80000,
  S_IFCHR: 0x2000,
} as const

/** Every arena ever made: what holds the memory while C code may touch it. */
const arenas: Arena[] = []

/** A block of memory with a fixed address, for the life of the thread. */
export class Arena {
  readonly bytes: Uint8Array
  readonly view: DataView
  /** The same by words of 32 bits, in the machine's order. */
  readonly words: Uint32Array
  readonly address: number

  constructor(length: number) {
    this.bytes = new Uint8Array(new ArrayBuffer((length + 7) & ~7))
    this.words = new Uint32Array(this.bytes.buffer)
    this.view = new DataView(this.bytes.buffer)
    this.address = Number(koffi.address(this.bytes))
    arenas.push(this)
  }
}

const MMSGHDR = 64
const IOVEC = 16
const SOCKADDR_IN = 16
/** cmsghdr (16) and in_pktinfo (12), padded to 8. */
const CONTROL = 32
const CMSG_LENGTH = 28
const OFFSET = {
  name: 0,
  nameLength: 8,
  iov: 16,
  iovLength: 24,
  control: 32,
  controlLength: 40,
  length: 56,
}

/** An array of `struct mmsghdr`, one buffer each, for recvmmsg and sendmmsg. */
export class MessageBatch {
  readonly address: number
  readonly size: number
  readonly #arena: Arena

  constructor(size: number) {
    this.size = size
    this.#arena = new Arena(size * (MMSGHDR + IOVEC + SOCKADDR_IN + CONTROL))
    this.address = this.#arena.address
    const { view } = this.#arena
    for (let i = 0; i < size; i++) {
      view.setBigUint64(i * MMSGHDR + OFFSET.iov, BigInt(this.address + this.#iov(i)), true)
      view.setBigUint64(i * MMSGHDR + OFFSET.iovLength, 1n, true)
    }
  }

  /** The buffer of message `i`. */
  setBuffer(i: number, address: number, length: number): void {
    const { view } = this.#arena
    const at = this.#iov(i)
    // Two stores of 32 bits: a BigInt would be an allocation per packet.
    view.setUint32(at, address >>> 0, true)
    view.setUint32(at + 4, Math.floor(address / 0x1_0000_0000), true)
    view.setUint32(at + 8, length, true)
  }

  /** Where message `i` goes and which address it comes from (int32): sockaddr_in, and IP_PKTINFO. */
  setAddresses(i: number, source: number, destination: number): void {
    const { view } = this.#arena
    const name = this.#name(i)
    const header = i * MMSGHDR
    const control = this.#control(i)
    if (view.getUint32(header + OFFSET.nameLength, true) === 0) {
      view.setBigUint64(header + OFFSET.name, BigInt(this.address + name), true)
      view.setUint32(header + OFFSET.nameLength, SOCKADDR_IN, true)
      view.setUint16(name, C.AF_INET, true)
      view.setBigUint64(header + OFFSET.control, BigInt(this.address + control), true)
      view.setUint32(header + OFFSET.controlLength, CONTROL, true)
      view.setUint32(control, CMSG_LENGTH, true)
      view.setInt32(control + 8, C.IPPROTO_IP, true)
      view.setInt32(control + 12, C.IP_PKTINFO, true)
    }
    view.setInt32(name + 4, destination)
    view.setInt32(control + 20, source) // ipi_spec_dst; interface index 0: by route
  }

  /** Octets received into message `i`. */
  length(i: number): number {
    return this.#arena.view.getUint32(i * MMSGHDR + OFFSET.length, true)
  }

  /** Address of message `i`, to send from there on. */
  at(i: number): number {
    return this.address + i * MMSGHDR
  }

  #iov(i: number): number {
    return this.size * MMSGHDR + i * IOVEC
  }

  #name(i: number): number {
    return this.size * (MMSGHDR + IOVEC) + i * SOCKADDR_IN
  }

  #control(i: number): number {
    return this.size * (MMSGHDR + IOVEC + SOCKADDR_IN) + i * CONTROL
  }
}

/** An array of `struct iovec`. */
export class IoVector {
  readonly address: number
  readonly #view: DataView

  constructor(size: number) {
    const arena = new Arena(size * IOVEC)
    this.address = arena.address
    this.#view = arena.view
  }

  set(i: number, address: number, length: number): void {
    const at = i * IOVEC
    this.#view.setUint32(at, address >>> 0, true)
    this.#view.setUint32(at + 4, Math.floor(address / 0x1_0000_0000), true)
    this.#view.setUint32(at + 8, length, true)
  }
}

/** Waits for several descriptors. */
export class PollSet {
  readonly #arena: Arena
  readonly #size: number

  constructor(size: number) {
    this.#size = size
    this.#arena = new Arena(size * 8)
    for (let i = 0; i < size; i++) this.set(i, -1, 0)
  }

  /** `fd` -1 is skipped. */
  set(i: number, fd: number, events: number): void {
    this.#arena.view.setInt32(i * 8, fd, true)
    this.#arena.view.setInt16(i * 8 + 4, events, true)
  }

  /** @returns how many are ready; 0 on timeout and when a signal came. */
  wait(timeout: number): number {
    const ready = sys.poll(this.#arena.address, this.#size, timeout)
    if (ready < 0 && errno() !== E.interrupted) throw failure('poll')
    return Math.max(ready, 0)
  }

  /** Events of entry `i`. */
  ready(i: number): number {
    return this.#arena.view.getInt16(i * 8 + 6, true)
  }
}

/** For arguments of calls that are not on the packet path: each thread has its own. */
const scratch = new Arena(512)

export function setOption(fd: number, level: number, option: number, value: number, name: string): void {
  scratch.view.setInt32(0, value, true)
  if (sys.setsockopt(fd, level, option, scratch.address, 4) < 0) throw failure(name)
}

export function getOption(fd: number, level: number, option: number, name: string): number {
  scratch.view.setInt32(0, 0, true)
  scratch.view.setUint32(4, 4, true)
  if (sys.getsockopt(fd, level, option, scratch.address, scratch.address + 4) < 0) throw failure(name)
  return scratch.view.getInt32(0, true)
}

export type FilterInstruction = readonly [code: number, jumpTrue: number, jumpFalse: number, k: number]

/** Attaches a classic BPF program (linux/filter.h). */
export function attachFilter(fd: number, program: readonly FilterInstruction[]): void {
  const { view, address } = scratch
  view.setUint16(0, program.length, true)
  view.setBigUint64(8, BigInt(address + 16), true)
  program.forEach(([code, jumpTrue, jumpFalse, k], i) => {
    const at = 16 + i * 8
    view.setUint16(at, code, true)
    view.setUint8(at + 2, jumpTrue)
    view.setUint8(at + 3, jumpFalse)
    view.setUint32(at + 4, k, true)
  })
  if (sys.setsockopt(fd, C.SOL_SOCKET, C.SO_ATTACH_FILTER, address, 16) < 0) throw failure('SO_ATTACH_FILTER')
}

/** bind or connect to an IPv4 end point. @returns 0, or -1 with errno. */
export function withEndpoint(call: typeof sys.bind, fd: number, address: Ip, port: number): number {
  scratch.bytes.fill(0, 0, SOCKADDR_IN)
  scratch.view.setUint16(0, C.AF_INET, true)
  scratch.view.setUint16(2, port)
  scratch.bytes.set(ipToBytes(address), 4)
  return call(fd, scratch.address, SOCKADDR_IN)
}

const IFNAMSIZ = 16
const IFREQ = 40

/** An ioctl with a `struct ifreq` that names a device. `write` fills the union, `read` looks at it after. */
export function interfaceRequest<T>(
  fd: number,
  request: number,
  device: string,
  name: string,
  write: (union: DataView) => void,
  read: (union: DataView) => T,
): T {
  const { bytes, address } = scratch
  bytes.fill(0, 0, IFREQ)
  bytes.set(new TextEncoder().encode(device).subarray(0, IFNAMSIZ - 1))
  const union = new DataView(bytes.buffer, IFNAMSIZ, IFREQ - IFNAMSIZ)
  write(union)
  if (sys.ioctl(fd, request, address) < 0) throw failure(`${name} ${device}`)
  return read(union)
}

/** What the last failed call means to a person. Read errno before anything else is called. */
export function failure(what: string): IpprivError {
  const code = errno()
  const name = Object.entries(ERRNO).find(([, value]) => value === code)?.[0] ?? String(code)
  const text = `${what}: ${name}`
  if (code === E.permission || code === E.access) return new IpprivError('IPP_HOST_PRIVILEGE', text)
  if (code === E.inUse) return new IpprivError('IPP_HOST_PORT_IN_USE', text)
  if (code === E.busy) return new IpprivError('IPP_PLANE_UNAVAILABLE', `${text}: used by another process`)
  if (code === E.notAvailable) return new IpprivError('IPP_HOST_ADDRESS', text)
  return new IpprivError('IPP_HOST_KERNEL', text)
}

/** Calls back once when `fd` can be written, from the event loop. @returns a function that gives up waiting. */
export function whenWritable(fd: number, callback: () => void): () => void {
  const handle = koffi.node.poll(fd, { writable: true, readable: false }, () => {
    stop()
    callback()
  })
  const stop = () => handle.close()
  return stop
}

/** OpenSSL's EVP as Node carries it. Pointers are numbers, 0 is NULL. `undefined` when Node does not export it. */
export const evp = loadEvp()
export type Evp = NonNullable<typeof evp>

function loadEvp() {
  const pointer = (name: string, ...parameters: string[]) => libc.func(name, POINTER, parameters)
  try {
    return {
      newContext: pointer('EVP_CIPHER_CTX_new') as () => number,
      freeContext: libc.func('EVP_CIPHER_CTX_free', 'void', [POINTER]) as (context: number) => void,
      aes256gcm: (pointer('EVP_aes_256_gcm') as () => number)(),
      aes128gcm: (pointer('EVP_aes_128_gcm') as () => number)(),
      chacha20poly1305: (pointer('EVP_chacha20_poly1305') as () => number)(),
      /** With a context and a query that may be NULL: the address of an algorithm. */
      fetchDigest: pointer('EVP_MD_fetch', POINTER, POINTER, POINTER) as (
        context: number,
        name: number,
        query: number,
      ) => number,
      digest: int('EVP_Digest', POINTER, 'size_t', POINTER, POINTER, POINTER, POINTER) as (
        data: number,
        length: number,
        out: number,
        outLength: number,
        algorithm: number,
        engine: number,
      ) => number,
      init: int('EVP_CipherInit_ex', POINTER, POINTER, POINTER, POINTER, POINTER, 'int') as (
        context: number,
        cipher: number,
        engine: number,
        key: number,
        iv: number,
        encrypt: number,
      ) => number,
      update: int('EVP_CipherUpdate', POINTER, POINTER, POINTER, POINTER, 'int') as (
        context: number,
        out: number,
        outLength: number,
        input: number,
        length: number,
      ) => number,
      final: int('EVP_CipherFinal_ex', POINTER, POINTER, POINTER) as (
        context: number,
        out: number,
        outLength: number,
      ) => number,
      control: int('EVP_CIPHER_CTX_ctrl', POINTER, 'int', 'int', POINTER) as (
        context: number,
        command: number,
        argument: number,
        pointer: number,
      ) => number,
    }
  } catch {
    // A Node linked without exported OpenSSL symbols: the caller takes node:crypto instead.
    return undefined
  }
}
