/** Three authorities whose keys a test has: their documents, one for each period, and web servers that hand them out. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fromHex, utf8 } from '#base/bytes'
import { unixTime } from '#base/time'
import { type Background, until } from '#demo/command'
import { DIRECTORY_PORT } from '#demo/daemons'
import { inNamespace } from '#demo/topology'
import { encodeBootstrap } from '#directory/bootstrap'
import { type ListedNode, signConsensus, verifyConsensus } from '#directory/consensus'
import type { NetworkParameters } from '#directory/documents'
import { DEFAULT_PARAMETERS } from '#directory/parameters'
import { listedWords } from '#directory/words'
import { crypto, keyPair, SPACE, value } from '../directory/network.ts'
import type { Lab } from './lab.ts'

/** Seconds: a document is replaced after one, and expires after three. */
const PERIOD = 16
const NAMES = ['ash', 'bay', 'cob']
const KEYS = NAMES.map((name) => keyPair(`authority ${name}`))
const PROGRAM = join(import.meta.dirname, 'document-server.ts')

export class Press {
  /** What documents say from the next period on. */
  parameters: NetworkParameters = DEFAULT_PARAMETERS
  /** Web servers that get each new document. */
  readonly readers = new Set<string>()
  readonly #lab: Lab
  #nodes: readonly ListedNode[] = []
  #serial = 0
  #text = ''
  #timer: NodeJS.Timeout | undefined

  constructor(lab: Lab) {
    this.#lab = lab
  }

  /** Lists the nodes that the one directory of the lab lists, with their pools, and prints from now on. */
  async start(): Promise<void> {
    const url = `http://${this.#lab.host('directory').address}:${DIRECTORY_PORT}/v1/consensus`
    const { stdout } = await this.#lab.run('directory', 'curl', '-sS', url)
    const authorities = [fromHex(String(this.#lab.setting('client', 'directory.key')))]
    const consensus = value(verifyConsensus(utf8(stdout), { authorities, now: now() }, crypto))
    this.#nodes = [...listedWords(stdout, consensus).values()]
    assert.equal(this.#nodes.length, this.#lab.nodes.length)
    this.#print()
    this.#timer = setInterval(() => this.#print(), 500)
  }

  end(): void {
    clearInterval(this.#timer)
  }

  /** Of the period that is `ago` periods over. */
  consensus(ago: number): string {
    const serial = Math.floor(now() / PERIOD) - ago
    const draft = {
      serial,
      validAfter: unixTime(serial * PERIOD),
      period: PERIOD,
      poolSpace: SPACE,
      parameters: this.parameters,
      nodes: this.#nodes,
    }
    return value(signConsensus(draft, KEYS.slice(0, 2), crypto)).text
  }

  /** Says that the authorities are at this host, each at its own port from `port` on. */
  bootstrap(serial: number, host: string, port: number): string {
    const { address } = this.#lab.host(host)
    const authorities = KEYS.map(({ publicKey }, i) => ({
      name: NAMES[i]!,
      key: publicKey,
      url: `http://${address}:${port + i}`,
    }))
    const draft = { serial, published: now(), threshold: 2, authorities }
    return value(encodeBootstrap(draft, KEYS.slice(0, 2), crypto))
  }

  /** Starts a web server with nothing to hand out. */
  async serve(name: string, host: string, port: number): Promise<Background> {
    mkdirSync(this.#folder(name), { recursive: true })
    const { namespace, address } = this.#lab.host(host)
    const argv = [process.execPath, PROGRAM, address, String(port), this.#folder(name)]
    const log = join(this.#lab.out, `${name}.log`)
    const server = this.#lab.commands.start(inNamespace(namespace, ...argv), log)
    await until(name, 30_000, () => readFileSync(log, 'utf8').includes('ready') || undefined)
    return server
  }

  /** Whole or not at all. */
  put(server: string, what: 'consensus' | 'bootstrap', text: string): void {
    const file = join(this.#folder(server), what)
    writeFileSync(`${file}.new`, text)
    renameSync(`${file}.new`, file)
  }

  #print(): void {
    const serial = Math.floor(now() / PERIOD)
    if (serial !== this.#serial) this.#text = this.consensus(0)
    this.#serial = serial
    for (const reader of this.readers) this.put(reader, 'consensus', this.#text)
  }

  #folder(server: string): string {
    return join(this.#lab.out, 'web', server)
  }
}

const now = () => unixTime(Date.now() / 1000)
