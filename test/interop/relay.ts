/** A host whose stock daemon is a node of the overlay: what its operator does, and what is seen there. */
import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fromHex, toHex } from '#base/bytes'
import { readNodeKeys } from '#config/keys'
import { sleep } from '#demo/command'
import { type DirectoryStatus, type NodeStatus, nodeReady, ready } from '#demo/daemons'
import { inNamespace } from '#demo/topology'
import { PUBLISHED_KEY } from '#overlay/identity'
import type { Charon } from './charon.ts'
import { type Offers, relayConfig, relayScript, type StockStatus } from './routers.ts'
import { LIMIT, lastLines, pem, type Stage } from './stage.ts'

export type KeyKind = 'ECDSA P-256' | 'ECDSA P-384' | 'RSA 2048'

const OVERLAY = ['alder', 'birch', 'cedar']
const RELAY = 'cedar'

export class Relay {
  readonly #stage: Stage
  #charon: Charon
  #status: StockStatus | undefined
  #offers: Offers | undefined

  constructor(stage: Stage) {
    this.#stage = stage
    this.#charon = stage.charon(RELAY)
  }

  /** The one that runs now. */
  get charon(): Charon {
    return this.#charon
  }

  /** Everything that is on stage, until the router is a listed node. */
  async bringUp(): Promise<string> {
    const { scene } = this.#stage
    await this.#stage.prepare()
    await this.#dealKeys()
    await this.#stage.amend(RELAY, { stock: { key: PUBLISHED_KEY } })
    // Its speaker asks for the consensus now and then: let the first one have everybody.
    const nodes = OVERLAY.filter((name) => name !== RELAY)
    await this.#stage.startNodes(nodes)
    await ready<DirectoryStatus>(scene.daemons.get('directory')!, LIMIT, (status) =>
      status.nodes === nodes.length ? undefined : `the directory knows ${status.nodes} nodes`,
    )
    scene.start(this.#stage.host(RELAY))
    const status = await ready<StockStatus>(scene.daemons.get(RELAY)!, LIMIT, ({ listed, neighbours }) =>
      listed && neighbours.length === 2 ? undefined : 'it does not know its neighbours',
    )
    this.#status = status
    const { address, namespace } = this.#stage.host(RELAY)
    const input = relayScript(address, status)
    await scene.commands.run(inNamespace(namespace, 'sh', '-s'), { input })
    await this.run(this.#charon)
    return `pool ${status.pool}, neighbours ${status.neighbours.map(({ name }) => name).join(', ')}`
  }

  /** Another daemon, or the same with other options, with the key of this node. */
  async run(charon: Charon, offers?: Offers, options = ''): Promise<void> {
    await this.#charon.stop()
    this.#charon = charon
    this.#offers = offers
    await charon.prepare(`install_routes = no\n  rsa_pss = yes\n  ${options}`)
    await charon.privateKey('own.pem', join(this.#stage.keysOf(RELAY), 'ike.pem'))
    await charon.publicKey('own.pem', pem((await readNodeKeys(this.#stage.keysOf(RELAY))).ike.publicKey))
    for (const { name, ikeKey } of this.#status!.neighbours)
      await charon.publicKey(`${name}.pem`, pem(fromHex(ikeKey)))
    await charon.start(LIMIT)
    await this.#load()
  }

  /** Its speaker publishes another key, every peer pins that, and the tunnels are made anew. */
  async giveKey(kind: KeyKind): Promise<void> {
    const pair =
      kind === 'RSA 2048'
        ? generateKeyPairSync('rsa', { modulusLength: 2048 })
        : generateKeyPairSync('ec', { namedCurve: kind === 'ECDSA P-256' ? 'P-256' : 'P-384' })
    const keys = this.#stage.keysOf(RELAY)
    const [own, publicKey] = [join(keys, 'router.pem'), join(keys, 'router.pub.pem')]
    await writeFile(own, pair.privateKey.export({ format: 'pem', type: 'pkcs8' }), { mode: 0o600 })
    const text = pair.publicKey.export({ format: 'pem', type: 'spki' }) as string
    await writeFile(publicKey, text)
    await this.#charon.privateKey('own.pem', own)
    await this.#charon.publicKey('own.pem', text)
    await this.endTunnels()
    await this.#load()
    await this.#stage.amend(RELAY, { stock: { key: PUBLISHED_KEY, publicKey } })
    const { daemons } = this.#stage.scene
    await daemons.get(RELAY)!.process.stop(20_000)
    this.#stage.scene.start(this.#stage.host(RELAY))
    const wanted = toHex(new Uint8Array(pair.publicKey.export({ format: 'der', type: 'spki' })))
    await ready<StockStatus>(daemons.get(RELAY)!, LIMIT, ({ ikeKey }) =>
      ikeKey === wanted ? undefined : 'the consensus has the old key',
    )
    await this.tunnelUp('alder')
  }

  async endTunnels(): Promise<void> {
    for (const { name } of this.#status!.neighbours)
      await this.#charon.swanctl('--terminate', '--ike', `ov-${name}`, '--force')
  }

  /** Waits for all tunnels of a node, and says what this one has with it. */
  async tunnelUp(name: string): Promise<string> {
    const others = OVERLAY.filter((other) => other !== name)
    await ready<NodeStatus>(this.#stage.scene.daemons.get(name)!, LIMIT, nodeReady(others))
    const sas = await this.#charon.sas()
    assert.match(sas, new RegExp(`ov-${name}: #\\d+, ESTABLISHED`), sas)
    return sas.match(new RegExp(`ov-${name}: #.*?\\n.*?\\n.*?\\n\\s*(\\S+)\\n`))?.[1] ?? ''
  }

  /** IKE SAs with clients. */
  async telescopes(): Promise<number> {
    return [...(await this.#charon.sas()).matchAll(/^telescope: #\d+, ESTABLISHED/gm)].length
  }

  /** Rekeys begun here. Returns what was logged of it. */
  async rekey(kind: 'child' | 'ike', name: string): Promise<string> {
    const mark = await this.#charon.logLength()
    const { stdout } = await this.#charon.swanctl('--rekey', `--${kind}`, name)
    await sleep(5000)
    const since = await this.#charon.logFrom(mark)
    const failure = /.*(?:rekeying failed|not support .* rekeying).*/i.exec(since)?.[0] ?? ''
    assert.ok(failure === '', failure)
    const done = kind === 'child' ? /CHILD_SA \S+ established/ : /IKE_SA \S+ rekeyed/
    assert.match(since, done, lastLines(`${stdout}\n${since}`))
    return since
  }

  /** Rekeys begun by a daemon of ours; waits until they are seen here. Returns what was logged of it. */
  async rekeyedBy(name: 'client' | 'alder', kind: 'child' | 'ike', which: object): Promise<string> {
    const mark = await this.#charon.logLength()
    const method = name === 'client' ? 'circuits.rekey' : 'overlay.rekey'
    await this.#stage.request(name, method, { ...which, ike: kind === 'ike' })
    const done = kind === 'ike' ? /IKE_SA \S+ rekeyed/ : /outbound CHILD_SA \S+ established/
    return await this.#charon.logged(mark, done, LIMIT)
  }

  async #load(): Promise<void> {
    await this.#charon.load(relayConfig(this.#stage.host(RELAY).address, this.#status!, this.#offers))
  }

  /** In ascending order of ids: the lower of two nodes begins their tunnel. */
  async #dealKeys(): Promise<void> {
    const names = ['alder', RELAY, 'birch']
    const folder = (name: string): string => this.#stage.keysOf(name)
    const made = await Promise.all(
      names.map(async (name) => ({ name, ...(await readNodeKeys(folder(name))) })),
    )
    const sorted = made.toSorted((a, b) => (a.nodeId < b.nodeId ? -1 : 1))
    for (const { name } of made) await rename(folder(name), `${folder(name)}.dealt`)
    for (const [i, { name }] of sorted.entries()) await rename(`${folder(name)}.dealt`, folder(names[i]!))
  }
}
