/**
 * One file and three at once, from a server to a host four cables away: in plain, over HTTPS, with scp, and through
 * one, two and three hops. Whatever protects it, the whole machine pays: both ends, the hosts between, the kernel.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Commands, until } from '#demo/command'
import { ADDRESS, CHAIN_NODES, type Chain, onHost } from '../chain.ts'
import type { OverlayNetwork } from '../overlay.ts'
import { busyDuring, idleLoad } from '../processors.ts'
import { SSH_PORT, SshServers } from '../ssh-server.ts'

export interface Transfer {
  readonly way: string
  readonly files: number
  readonly mbps: number
  /** Processor seconds of the machine above idle per gigabyte. */
  readonly cost: number
}

const MEBIBYTES = 32
const OCTETS = MEBIBYTES << 20
const [HTTP, HTTPS] = [8081, 8443]
/** Hops of a circuit, by the topology of old it stands for. */
const CIRCUITS = {
  'ippriv, 1 hop (host to host)': [CHAIN_NODES[2]],
  'ippriv, 2 hops (gateway to gateway)': [CHAIN_NODES[0], CHAIN_NODES[2]],
  'ippriv, 3 hops': CHAIN_NODES,
} as const

export class Transfers {
  readonly #commands: Commands
  readonly #chain: Chain
  readonly #home: string
  readonly #ssh: SshServers
  #hasSsh = false

  constructor(commands: Commands, chain: Chain, home: string) {
    this.#commands = commands
    this.#chain = chain
    this.#home = home
    this.#ssh = new SshServers(commands, join(home, 'ssh'))
  }

  get hasSsh(): boolean {
    return this.#hasSsh
  }

  async start(): Promise<void> {
    await mkdir(this.#home, { recursive: true, mode: 0o700 })
    const [key, cert] = [join(this.#home, 'key.pem'), join(this.#home, 'cert.pem')]
    const subject = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=server']
    await this.#commands.run(['openssl', 'req', '-x509', ...subject, '-keyout', key, '-out', cert])
    const server = join(import.meta.dirname, 'file-server.ts')
    const log = join(this.#home, 'files.log')
    const argv = [process.execPath, server, ADDRESS.server, String(HTTP), String(HTTPS), key, cert]
    this.#commands.start(onHost(this.#chain, 'server', ...argv), log)
    await until('the file server', 20_000, async () =>
      (await readFile(log, 'utf8')).endsWith('ready\n') ? true : undefined,
    )
    this.#hasSsh = await SshServers.isInstalled()
    if (!this.#hasSsh) return
    await writeFile(join(this.#home, 'file'), Buffer.alloc(OCTETS, 0x5a))
    await this.#ssh.prepare()
    await this.#ssh.start('server', ADDRESS.server, (...argv) => onHost(this.#chain, 'server', ...argv))
  }

  async round(overlay: OverlayNetwork): Promise<Transfer[]> {
    const idle = await idleLoad()
    const results: Transfer[] = []
    const measure = async (way: string, argv: readonly string[]) => {
      for (const files of [1, 3]) results.push(await this.#transfer(way, files, argv, idle))
    }
    const get = ['curl', '-sSf', '--insecure', '-o', '/dev/null']
    const plain = onHost(this.#chain, 'plain', ...get, `http://${ADDRESS.server}:${HTTP}/${OCTETS}`)
    await measure('plain', plain)
    await measure(
      'HTTPS',
      onHost(this.#chain, 'plain', ...get, `https://${ADDRESS.server}:${HTTPS}/${OCTETS}`),
    )
    if (this.#hasSsh) await measure('scp', this.#scp())
    for (const [way, path] of Object.entries(CIRCUITS)) {
      await overlay.openCircuit(path)
      await measure(way, onHost(this.#chain, 'client', ...get, `http://${ADDRESS.server}:${HTTP}/${OCTETS}`))
    }
    return results
  }

  async #transfer(way: string, files: number, argv: readonly string[], idle: number): Promise<Transfer> {
    let seconds = 0
    const busy = await busyDuring(async () => {
      const began = performance.now()
      await Promise.all(Array.from({ length: files }, () => this.#commands.run(argv, { timeoutMs: 120_000 })))
      seconds = (performance.now() - began) / 1000
    })
    const gigabytes = (files * OCTETS) / 1e9
    return {
      way,
      files,
      mbps: (8000 * gigabytes) / seconds,
      cost: Math.max(0, busy - idle * seconds) / gigabytes,
    }
  }

  #scp(): string[] {
    const file = `root@${ADDRESS.server}:${join(this.#home, 'file')}`
    const flags = ['-q', '-P', String(SSH_PORT), ...this.#ssh.options]
    return onHost(this.#chain, 'plain', 'scp', ...flags, file, '/dev/null')
  }
}
