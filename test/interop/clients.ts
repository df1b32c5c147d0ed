/** Cells: a stock client whose gateway is a node of ours. */
import assert from 'node:assert/strict'
import { until } from '#demo/command'
import { PAGE_MARK } from '#demo/content'
import { ready } from '#demo/daemons'
import type { Host } from '#demo/topology'
import type { Cells } from './cell.ts'
import type { Charon } from './charon.ts'
import { clientConfig, SUITES, type Suite } from './routers.ts'
import { LIMIT, lastLines, pem, type Stage } from './stage.ts'

const PLAIN = 'plain'
const GATEWAY = 'alder'

export async function playClients({ cell }: Cells, stage: Stage): Promise<void> {
  const aes = SUITES['aes-256-gcm-16']
  for (const [cipher, suite] of Object.entries(SUITES))
    await cell('b client', `charon through our node, ${cipher}`, () =>
      stockClient(stage, stage.charon(PLAIN, cipher), suite),
    )
  await cell('b client', 'charon through our node, key exchange P-256', () => {
    const suite = { ...aes, ike: aes.ike.replace('x25519', 'ecp256') }
    return stockClient(stage, stage.charon(PLAIN, 'ecp256'), suite)
  })
  await cell('b client', 'MOBIKE: charon moves, through our node', () =>
    stockClient(stage, stage.charon(PLAIN, 'mobike'), aes, {
      async meanwhile(_, host) {
        await stage.relocate(host, host.address, host.address.replace(/1$/, '77'))
        await until('an answer from the new address', LIMIT, async () =>
          (await stage.scene.traffic.ping(host, 3)).received > 0 ? true : undefined,
        )
        return 'moved'
      },
    }),
  )
}

export interface StockClient {
  /** Of strongswan.conf. */
  readonly options?: string
  /** It does ESP itself, not its kernel. */
  readonly userspace?: true
  /** Addresses it asks for. */
  readonly vips?: string
  /** What happens once a page came through; says what it was. */
  readonly meanwhile?: (charon: Charon, host: Host) => Promise<string>
}

interface GatewayStatus {
  readonly sas: readonly { readonly source: string; readonly destination: string }[]
}

/** A host moves within its /24. */
const isOf = (host: Host, address: string): boolean => address.startsWith(host.address.replace(/\d+$/, ''))

/** A stock client comes up, gets a page and a file through our node, and goes; its SAs there go with it. */
export async function stockClient(
  stage: Stage,
  charon: Charon,
  suite: Suite,
  { options = '', userspace, vips, meanwhile }: StockClient = {},
): Promise<string> {
  const host = stage.host(PLAIN)
  const gateway = await stage.gateway(GATEWAY)
  await charon.prepare(options, 'everything', userspace ? 'userspace' : 'kernel')
  await charon.publicKey(`${GATEWAY}.pem`, pem(gateway.ikeKey))
  await charon.start(LIMIT)
  try {
    await charon.load(clientConfig(gateway, suite, vips))
    const { stdout } = await charon.swanctl('--initiate', '--child', 'everything', '--timeout', '30')
    assert.match(stdout, /initiate completed successfully/, lastLines(stdout))
    const [, bits] = /^aes(\d+)gcm16/.exec(suite.esp) ?? []
    const cipher = bits === undefined ? 'CHACHA20_POLY1305' : `AES_GCM_16-${bits}`
    assert.match(await charon.sas(), new RegExp(`ESP:${cipher}`))
    assert.ok((await stage.scene.traffic.page(host, '/')).includes(PAGE_MARK))
    const told = await meanwhile?.(charon, host)
    const mbps = await stage.verified(PLAIN, GATEWAY)
    const ended = await charon.swanctl('--terminate', '--ike', 'gateway', '--timeout', '20')
    assert.match(ended.stdout, /terminate completed successfully/, lastLines(ended.stdout))
    await ready<GatewayStatus>(stage.scene.daemons.get(GATEWAY)!, LIMIT, ({ sas }) =>
      sas.some(({ source, destination }) => isOf(host, source) || isOf(host, destination))
        ? 'it has SAs with charon'
        : undefined,
    )
    const first = told === undefined ? '' : `${told}; `
    return `${first}page and file verified, ${mbps.toFixed(1)} Mbit/s; deleted by charon, nothing of it is left`
  } finally {
    await charon.stop()
  }
}
