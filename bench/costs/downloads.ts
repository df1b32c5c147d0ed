/**
 * Files from a server to hosts four cables away: in plain, over HTTPS, with scp, and through a circuit. Whatever
 * protects them, the whole machine pays: both ends, the hosts between, the kernel.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { EspCipher } from '#crypto/suites'
import { type Commands, until } from '#demo/command'
import { ADDRESS, type Chain, type ChainHost, devicesOf, onHost } from '../chain.ts'
import { CLIENTS } from '../overlay.ts'
import { busyDuring } from '../processors.ts'
import { SSH_PORT, SshServers } from '../ssh-server.ts'

export type Protection = 'plain' | 'HTTPS' | 'scp' | 'ippriv'

export interface Download {
  readonly way: Protection
  /** As many hosts, each with a circuit of its own where there are circuits; or one host with all files at once. */
  readonly hosts: number
  readonly files: number
  /** Octets of each file. */
  readonly octets: number
  /** HTTPS and scp use the same one. Default: theirs. */
  readonly cipher?: EspCipher
  /** Processor seconds per second that the machine uses by itself. */
  readonly idle: number
}

export interface Downloaded {
  /** Goodput of all hosts together in Mbit/s, sessions set up included. */
  readonly mbps: number
  /** Processor seconds of the machine above idle per gigabyte; NaN where the machine was not idle before. */
  readonly cost: number
}

const [HTTP, HTTPS] = [8081, 8443]
const [SERVER_DEVICE] = devicesOf('server')
/** Where the traffic begins that no client protects. */
const PLAIN_HOSTS = ['plain', 'second', 'third'] as const
const TLS: Readonly<Record<EspCipher, string>> = {
  'aes-128-gcm-16': 'TLS_AES_128_GCM_SHA256',
  'aes-256-gcm-16': 'TLS_AES_256_GCM_SHA384',
  'chacha20-poly1305': 'TLS_CHACHA20_POLY1305_SHA256',
}
const SSH: Readonly<Record<EspCipher, string>> = {
  'aes-128-gcm-16': 'aes128-gcm@openssh.com',
  'aes-256-gcm-16': 'aes256-gcm@openssh.com',
  'chacha20-poly1305': 'chacha20-poly1305@openssh.com',
}

export class Downloads {
  readonly #commands: Commands
  readonly #chain: Chain
  readonly #home: string
  readonly #ssh: SshServers
  readonly #written = new Set<number>()
  #hasSsh = false

  constructor(commands: Commands, chain: Chain, home: string) {
    this.#commands = commands
    this.#chain = chain
    this.#home = home
    this.#ssh = new SshServers(commands, join(home, 'ssh'))
  }

  /** What there is to compare with: scp is missing where there is no server for it. */
  get others(): readonly Protection[] {
    return this.#hasSsh ? ['plain', 'HTTPS', 'scp'] : ['plain', 'HTTPS']
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
    await this.#ssh.prepare()
    await this.#ssh.start('server', ADDRESS.server, (...argv) => onHost(this.#chain, 'server', ...argv))
  }

  /** The server sends IP packets of at most so many octets from now on, whoever asks; undefined: as its cable takes. */
  async limitPackets(octets: number | undefined): Promise<void> {
    const limit = octets === undefined ? '' : ` mtu lock ${octets}`
    // All routes: an exit hides its clients behind the address of its own end of the cable.
    const script = `ip route show dev ${SERVER_DEVICE} | while read r; do
  ip route replace \${r%% mtu *} dev ${SERVER_DEVICE}${limit}
done`
    await this.#commands.run(onHost(this.#chain, 'server', 'sh', '-ec', script))
  }

  async measure({ way, hosts, files, octets, cipher, idle }: Download): Promise<Downloaded> {
    if (way === 'scp' && !this.#written.has(octets)) {
      await writeFile(this.#file(octets), Buffer.alloc(octets, 0x5a))
      this.#written.add(octets)
    }
    const from = way === 'ippriv' ? CLIENTS : PLAIN_HOSTS
    const commands = from
      .slice(0, hosts)
      .flatMap((host) => Array.from({ length: files }, () => this.#argv(way, host, octets, cipher)))
    let seconds = 0
    const busy = await busyDuring(async () => {
      const began = performance.now()
      await Promise.all(commands.map((argv) => this.#commands.run(argv, { timeoutMs: 120_000 })))
      seconds = (performance.now() - began) / 1000
    })
    const gigabytes = (commands.length * octets) / 1e9
    // Where others were busier before than all are now, nothing is known of it.
    const above = busy - idle * seconds
    return { mbps: (8000 * gigabytes) / seconds, cost: above > 0 ? above / gigabytes : Number.NaN }
  }

  #argv(way: Protection, host: ChainHost, octets: number, cipher: EspCipher | undefined): string[] {
    if (way === 'scp') {
      const flags = ['-q', '-P', String(SSH_PORT), ...this.#ssh.options]
      const insist = cipher === undefined ? [] : ['-c', SSH[cipher]]
      const file = `root@${ADDRESS.server}:${this.#file(octets)}`
      return onHost(this.#chain, host, 'scp', ...flags, ...insist, file, '/dev/null')
    }
    const insist = way === 'HTTPS' && cipher !== undefined ? ['--tls13-ciphers', TLS[cipher]] : []
    const url =
      way === 'HTTPS'
        ? `https://${ADDRESS.server}:${HTTPS}/${octets}`
        : `http://${ADDRESS.server}:${HTTP}/${octets}`
    return onHost(this.#chain, host, 'curl', '-sSf', '--insecure', '-o', '/dev/null', ...insist, url)
  }

  #file(octets: number): string {
    return join(this.#home, `file-${octets}`)
  }
}
