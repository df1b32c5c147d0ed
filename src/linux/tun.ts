import { closeSync, constants, existsSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { IpprivError } from '#base/errors'
import { C, failure, interfaceRequest, sys } from '#linux/ffi'
import { VIRTIO_HEADER } from '#linux/virtio'

const DEVICE_NODE = '/dev/net/tun'
/** linux/if_tun.h, linux/sockios.h */
const TUNSETIFF = 0x400454ca
const IFF_TUN = 1
const IFF_NO_PI = 0x1000
const IFF_VNET_HDR = 0x4000
const IFF_MULTI_QUEUE = 0x100
const IFF_TUN_EXCL = 0x8000
const TUNSETOFFLOAD = 0x400454d0
const TUN_F_CSUM = 1
const TUN_F_TSO4 = 2
const IFF_UP = 1
const SIOCGIFFLAGS = 0x8913
const SIOCSIFFLAGS = 0x8914
const SIOCSIFMTU = 0x8922
const SIOCSIFTXQLEN = 0x8943
/** Character device 10:200 (Documentation/admin-guide/devices.txt). */
const TUN_DEVICE = (10 << 8) | 200

/** Packets the kernel may queue towards us while we work on a batch. */
const QUEUE_LENGTH = 1000

/** The largest read: a virtio header, and an IPv4 packet that was not cut yet. */
export const TUN_READ = VIRTIO_HEADER + 0xffff

/**
 * A layer-3 device of ours. Every packet has a virtio header in front, for TCP in pieces of up to 64 KiB and with its
 * checksum left to us, both ways. It exists as long as its descriptor is open: a killed process leaves nothing.
 */
export class Tun {
  readonly name: string
  /** One per queue. The kernel keeps every connection in one queue, and answers in the queue that asked. */
  readonly fds: readonly number[]

  private constructor(name: string, fds: readonly number[]) {
    this.name = name
    this.fds = fds
  }

  /**
   * Creates the device with `queues` queues, sets its MTU and brings it up. Reads do not block.
   * @throws IpprivError IPP_HOST_PRIVILEGE, IPP_HOST_KERNEL (no TUN driver), IPP_PLANE_UNAVAILABLE (name taken)
   */
  static open(name: string, mtu: number, queues = 1): Tun {
    if (!existsSync(DEVICE_NODE)) makeDeviceNode()
    const fds: number[] = []
    try {
      for (let i = 0; i < queues; i++) {
        // The first of many alone: to a device with queues another process could add its own.
        fds.push(openDeviceNode())
        attach(fds[i]!, name, queues > 1 ? IFF_MULTI_QUEUE | (i === 0 ? IFF_TUN_EXCL : 0) : 0)
      }
      configure(name, mtu)
      disableIpv6(name)
      return new Tun(name, fds)
    } catch (error) {
      for (const fd of fds) closeSync(fd)
      throw error
    }
  }

  close(): void {
    for (const fd of this.fds) closeSync(fd)
  }
}

function openDeviceNode(): number {
  try {
    return openSync(DEVICE_NODE, constants.O_RDWR | constants.O_NONBLOCK)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EACCES' || code === 'EPERM') throw new IpprivError('IPP_HOST_PRIVILEGE', DEVICE_NODE)
    throw new IpprivError('IPP_HOST_KERNEL', `${DEVICE_NODE}: ${code}: no TUN driver`)
  }
}

/** Minimal containers have the driver but not the node. */
function makeDeviceNode(): void {
  try {
    mkdirSync('/dev/net', { recursive: true })
  } catch (error) {
    throw new IpprivError('IPP_HOST_PRIVILEGE', `/dev/net: ${(error as NodeJS.ErrnoException).code}`)
  }
  if (sys.mknod(DEVICE_NODE, C.S_IFCHR | 0o600, TUN_DEVICE) < 0) throw failure(`mknod ${DEVICE_NODE}`)
}

function attach(fd: number, name: string, more: number): void {
  const flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | more
  try {
    interfaceRequest(
      fd,
      TUNSETIFF,
      name,
      'TUNSETIFF',
      (union) => union.setUint16(0, flags, true),
      () => undefined,
    )
  } catch (error) {
    if (!(error instanceof IpprivError && error.where.endsWith(': EINVAL'))) throw error
    const where = `a device of another kind has the name ${name}; rename or remove it`
    throw new IpprivError('IPP_PLANE_UNAVAILABLE', where, { cause: error })
  }
  if (sys.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) < 0) throw failure(`TUNSETOFFLOAD ${name}`)
}

function configure(name: string, mtu: number): void {
  const fd = sys.socket(C.AF_INET, C.SOCK_DGRAM | C.SOCK_CLOEXEC, 0)
  if (fd < 0) throw failure('socket')
  try {
    const set = (request: number, what: string, value: number) =>
      interfaceRequest(
        fd,
        request,
        name,
        what,
        (union) => union.setInt32(0, value, true),
        () => undefined,
      )
    set(SIOCSIFMTU, 'SIOCSIFMTU', mtu)
    set(SIOCSIFTXQLEN, 'SIOCSIFTXQLEN', QUEUE_LENGTH)
    const flags = interfaceRequest(
      fd,
      SIOCGIFFLAGS,
      name,
      'SIOCGIFFLAGS',
      () => undefined,
      (union) => union.getInt16(0, true),
    )
    interfaceRequest(
      fd,
      SIOCSIFFLAGS,
      name,
      'SIOCSIFFLAGS',
      (union) => union.setInt16(0, flags | IFF_UP, true),
      () => undefined,
    )
  } finally {
    sys.close(fd)
  }
}

/** The plane carries IPv4: keep router solicitations and the like off the device. */
function disableIpv6(name: string): void {
  const path = `/proc/sys/net/ipv6/conf/${name}/disable_ipv6`
  if (!existsSync(path)) return
  try {
    writeFileSync(path, '1')
  } catch {
    // /proc is read-only in many containers, and the engine drops IPv6 anyway: this only saves it the work.
    return
  }
}
