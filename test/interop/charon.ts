/** A stock strongSwan in a network namespace: configuration, daemon, and what it says about itself. */
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Background, CommandResult, Commands } from '#demo/command'
import { until } from '#demo/command'
import { inNamespace } from '#demo/topology'

const DAEMON = '/usr/sbin/charon-systemd'
const FOLDERS =
  'pkcs8 pubkey x509 x509ca private rsa ecdsa pkcs12 bliss x509crl x509ac x509aa x509ocsp conf.d'.split(' ')
const PLUGINS =
  'random nonce openssl curve25519 gcm aes chapoly hmac sha1 sha2 kdf drbg pem pkcs1 pkcs8 pubkey x509 constraints ' +
  'revocation socket-default kernel-netlink attr updown counters vici'

export class Charon {
  readonly #commands: Commands
  readonly #namespace: string
  /** On a tmpfs: Unix sockets do not work on a host's file system. */
  readonly #home: string
  readonly #log: string
  readonly #root: string | undefined
  #process: Background | undefined

  /** `root`: of another system, which has the programs; absent: this one. */
  constructor(commands: Commands, namespace: string, home: string, log: string, root?: string) {
    this.#commands = commands
    this.#namespace = namespace
    this.#home = home
    this.#log = log
    this.#root = root
  }

  /** `options` are lines of the section `charon`; nothing else differs from Debian's defaults but logs and plugins. */
  async prepare(
    options: string,
    logged: 'everything' | 'nothing' = 'everything',
    esp: 'kernel' | 'userspace' = 'kernel',
  ): Promise<void> {
    for (const folder of FOLDERS)
      await mkdir(join(this.#home, 'swanctl', folder), { recursive: true, mode: 0o700 })
    const quiet =
      'journal { default = -1 }\n  syslog {\n    daemon { default = -1 }\n    auth { default = -1 }\n  }'
    const everything = `filelog { stderr {\n    default = 1\n    ike = 2\n    chd = 2\n    cfg = 2\n    knl = 1\n    flush_line = yes\n  } }`
    await writeFile(
      join(this.#home, 'strongswan.conf'),
      `charon-systemd {
  load = ${esp === 'userspace' ? `kernel-libipsec ${PLUGINS}` : PLUGINS}
  ${options}
  ${logged === 'everything' ? everything : ''}
  ${quiet}
  plugins { vici { socket = ${this.#socket} } }
}
swanctl { load = pem pkcs1 pkcs8 x509 pubkey openssl random sha1 sha2 hmac }
`,
    )
  }

  /** A key file (PKCS#8) of its own. */
  async privateKey(name: string, file: string): Promise<void> {
    await copyFile(file, join(this.#home, 'swanctl/pkcs8', name))
  }

  async publicKey(name: string, pem: string): Promise<void> {
    await writeFile(join(this.#home, 'swanctl/pubkey', name), pem)
  }

  async start(patienceMs: number): Promise<void> {
    this.#process = this.#commands.start(this.#run(DAEMON), this.#log)
    await until('waiting for charon', patienceMs, async () => {
      const { code } = await this.swanctl('--stats')
      return code === 0 ? true : undefined
    })
  }

  /** Takes the place of what was loaded before. @throws IpprivError when swanctl refuses it */
  async load(config: string): Promise<void> {
    await writeFile(join(this.#home, 'swanctl/swanctl.conf'), config, { mode: 0o600 })
    await this.swanctl('--load-all', '--clear', '--noprompt').then(({ code, stdout, stderr }) => {
      if (code !== 0) throw new Error(`swanctl --load-all: ${stderr || stdout}`)
    })
  }

  async swanctl(command: string, ...args: readonly string[]): Promise<CommandResult> {
    const argv = this.#run('swanctl', command, ...args, '--uri', this.#socket)
    return await this.#commands.run(argv, { check: false, timeoutMs: 120_000 })
  }

  /** How much it has said so far. */
  async logLength(): Promise<number> {
    return (await this.logFrom(0)).length
  }

  async logFrom(mark: number): Promise<string> {
    return (await readFile(this.#log, 'utf8')).slice(mark)
  }

  /** What it says from `mark` on, once `pattern` is in it. */
  async logged(mark: number, pattern: RegExp, patienceMs: number): Promise<string> {
    return await until(`waiting for charon to log ${pattern}`, patienceMs, async () => {
      const log = await this.logFrom(mark)
      return pattern.test(log) ? log : undefined
    })
  }

  get pid(): number | undefined {
    return this.#process?.pid
  }

  /** `swanctl --list-sas`, as it prints it. */
  async sas(): Promise<string> {
    return (await this.swanctl('--list-sas')).stdout
  }

  async stop(): Promise<void> {
    await this.#process?.stop(10_000)
  }

  get #socket(): string {
    return `unix://${join(this.#home, 'vici.sock')}`
  }

  #run(...argv: readonly string[]): string[] {
    const environment = [
      `STRONGSWAN_CONF=${join(this.#home, 'strongswan.conf')}`,
      `SWANCTL_DIR=${join(this.#home, 'swanctl')}`,
    ]
    const elsewhere = this.#root === undefined ? [] : ['unshare', '-m', 'sh', '-ec', ELSEWHERE, this.#root]
    return inNamespace(this.#namespace, 'env', ...environment, ...elsewhere, ...argv)
  }
}

/** Another system's programs with this one's devices, and its /run for sockets and configuration. */
const ELSEWHERE = `mount -t proc proc "$0/proc"
for folder in dev run; do mount --rbind /$folder "$0/$folder"; done
exec chroot "$0" "$@"`
