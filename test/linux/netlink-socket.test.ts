/** A netlink socket, and how long it waits for the kernel. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isErrno, Netlink, type NetlinkRequest } from '#linux/netlink'
import { NLMSG } from '#wire/netlink/message'

const PATIENCE = 20

/** RTM_GETLINK of every link; `struct ifinfomsg` is all zero. */
const LINKS: NetlinkRequest = { name: 'GETLINK', type: 18, payload: new Uint8Array(16) }
/** The kernel says nothing to it, as when an answer is lost. */
const SILENCE: NetlinkRequest = { name: 'NOOP', type: NLMSG.noop, payload: new Uint8Array(0) }

test('an answer that waited for this thread is no lost answer', async () => {
  const netlink = new Netlink('route', PATIENCE)
  const links = netlink.dump(LINKS)
  // The request leaves in a microtask; then this thread gets no processor.
  await Promise.resolve()
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5 * PATIENCE)
  assert.ok((await links).length > 0)
  netlink.close()
})

test('a lost answer is ETIMEDOUT, and the next request has its own', async () => {
  const netlink = new Netlink('route', PATIENCE)
  await assert.rejects(netlink.get(SILENCE), (error) => isErrno(error, 'ETIMEDOUT'))
  assert.ok((await netlink.dump(LINKS)).length > 0)
  netlink.close()
})
