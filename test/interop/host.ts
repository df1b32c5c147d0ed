/**
 * Cells without a kernel that has ESP: charon's own userspace ESP (kernel-libipsec) and our userspace plane, in
 * namespaces of this host. charon then pretends a NAT, so that all ESP is in UDP (RFC 3948).
 */
import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { type NodeStatus, nodeReady, ready } from '#demo/daemons'
import type { Cells } from './cell.ts'
import { stockClient } from './clients.ts'
import { SUITES } from './routers.ts'
import { LIMIT, Stage } from './stage.ts'

/** The client is the node's too, and is not started: its configuration is written with the others. */
const HOSTS = ['client', 'plain', 'server', 'directory', 'alder']

export async function playHost({ cell, essential }: Cells, out: string): Promise<void> {
  await mkdir(out, { recursive: true })
  const stage = new Stage(out, 'userspace', HOSTS)
  try {
    await essential('b host', 'our node with the userspace plane is listed', async () => {
      await stage.prepare()
      await stage.startNodes(['alder'])
      const status = await ready<NodeStatus>(stage.scene.daemons.get('alder')!, LIMIT, nodeReady([]))
      return `pool ${status.pool}, plane ${status.plane}`
    })
    for (const [cipher, suite] of Object.entries(SUITES))
      await cell('b host', `charon with userspace ESP through our node, ${cipher}`, () =>
        stockClient(stage, stage.charon('plain', cipher), suite, { userspace: true }),
      )
    await cell('b host', 'charon has AES-128-GCM alone, for IKE and ESP', () => {
      const suite = { ike: 'aes128gcm16-prfsha384-ecp256', esp: 'aes128gcm16' }
      return stockClient(stage, stage.charon('plain', 'aes-128'), suite, { userspace: true })
    })
    await cell('b host', 'charon asks for IPv4 and IPv6, of the address and the traffic', () => {
      const charon = stage.charon('plain', 'both-families')
      return stockClient(stage, charon, SUITES['aes-256-gcm-16'], {
        userspace: true,
        vips: '0.0.0.0,::',
        async meanwhile() {
          const log = await charon.logFrom(0)
          assert.match(log, /IKE_AUTH request \d+ \[.* CPRQ\(ADDR ADDR6\)/)
          return `gets ${/TS (\S+ === \S+)/.exec(log)?.[1]}`
        },
      })
    })
  } finally {
    await stage.clear()
  }
}
