/**
 * `ippriv node` for a stock router: it speaks for a router that knows nothing of IPpriv. It publishes the router's
 * descriptor and keeps it fresh, and says what has to be configured there: the pool it lends from, and an overlay
 * tunnel to each neighbour. It touches no packet and no key of the router, and may run anywhere.
 */
import { toHex } from '#base/bytes'
import { formatPrefix } from '#base/ip'
import { unwrap } from '#base/result'
import { unixTime } from '#base/time'
import { readStockKeys, readToken } from '#config/keys'
import type { NodeConfig, StockConfig } from '#config/load'
import { nodeCrypto } from '#crypto/node'
import { claimsOf } from '#daemon/claims'
import { IKE_PORT, Runtime, SOFTWARE } from '#daemon/runtime'
import { resolveTrust } from '#daemon/trust'
import { encodeDescriptor } from '#directory/descriptor'
import type { Consensus, ConsensusNode } from '#directory/documents'

export async function speakFor(config: NodeConfig, stock: StockConfig, check: boolean): Promise<void> {
  const { nodeId, identity, ikeKey } = await readStockKeys(config.keys, stock.publicKey)
  const claims = await claimsOf(config, identity.publicKey, nodeCrypto)
  const token = config.token === undefined ? undefined : await readToken(config.token)
  if (check) return
  const runtime = new Runtime('node', config)
  await runtime.run(async () => {
    const trust = await resolveTrust(config.directory, config.state, runtime.crypto)
    let consensus: Consensus | undefined
    let trouble: string | null = null
    const descriptor = (): string => {
      const fields = {
        ikeKey,
        ike: { method: 'psk', key: stock.key } as const,
        name: config.name,
        address: config.address,
        port: IKE_PORT,
        roles: config.roles,
        exitPolicy: config.exitPolicy,
        published: unixTime(Date.now() / 1000),
        software: SOFTWARE,
        ...claims,
      }
      const pair = { privateKey: identity.seed, publicKey: identity.publicKey }
      return unwrap(encodeDescriptor(fields, pair, runtime.crypto)).text
    }
    await runtime.followDirectory(trust, {
      descriptor,
      ...(token === undefined ? {} : { token }),
      onConsensus: (fresh) => {
        consensus = fresh
      },
      onTrouble: (line) => {
        trouble = line
      },
    })
    await runtime.serve({
      status: async () => {
        const nodes = consensus?.nodes ?? []
        const mine = nodes.find((node) => node.nodeId === nodeId)
        return {
          role: 'node',
          pid: process.pid,
          name: config.name,
          nodeId,
          plane: 'stock',
          pool: mine === undefined ? null : formatPrefix(mine.pool),
          listed: mine !== undefined,
          ikeKey: mine === undefined ? null : toHex(mine.ikeKey),
          lastError: trouble,
          neighbours: nodes.filter((node) => node !== mine).map(describe),
        }
      },
    })
    return undefined
  })
}

/** A neighbour as the router must know it: its IKE identity is the ID_KEY_ID of its node id. */
const describe = ({ name, nodeId, address, pool, ikeKey, ecdsaKey }: ConsensusNode): object => ({
  name,
  nodeId,
  address,
  pool: formatPrefix(pool),
  ikeKey: toHex(ikeKey),
  ...(ecdsaKey === undefined ? {} : { ecdsaKey: toHex(ecdsaKey) }),
})
