/**
 * One file and three at once, from a server to a host four cables away: in plain, over HTTPS, with scp, and through
 * one, two and three hops. Whatever protects it, the whole machine pays: both ends, the hosts between, the kernel.
 */
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { type Commands, until } from '#demo/command'
import { ADDRESS, CHAIN_NODES, type Chain, onHost } from '../chain.ts'
import type { OverlayNetwork } from '../overlay.ts'
import { busyDuring, idleLoad } from '../processors.ts'

export interface Transfer {
  readonly way: string
  readonly files: number
  readonly mbps: number
  /** Processor seconds of the machine above idle per gigabyte. */
  readonly cost: number
}

const MEBIBYTES = 32
const OCTETS = MEBIBYTES << 20
const [HTTP, HTTPS, SSH] = [8081, 8443, 2222]
/** Unpacked by deploy/setup.sh, with a library of its own. */
const OPENSSH = resolve('node_modules/.cache/openssh')
const SSHD = join(OPENSSH, 'usr/sbin/sshd')
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
  #hasSsh = false

  constructor(commands: Commands, chain: Chain, home: string) {
    this.#commands = commands
    this.#chain = chain
    this.#home = home
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
    this.#hasSsh = await stat(SSHD).then(
      () => true,
      () => false,
    )
    if (this.#hasSsh) await this.#startSsh()
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

  // ---------------------------------------------------------------------------------------------- scp

  /** A server that sees a home, accounts and /run of its own: nothing of this machine's ssh is read or changed. */
  async #startSsh(): Promise<void> {
    const file = (name: string) => join(this.#home, name)
    const keygen = (name: string) =>
      this.#commands.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', file(name)])
    await Promise.all([keygen('host'), keygen('user')])
    await writeFile(file('file'), Buffer.alloc(OCTETS, 0x5a))
    await writeFile(
      file('sshd.conf'),
      [
        `Port ${SSH}`,
        `ListenAddress ${ADDRESS.server}`,
        `HostKey ${file('host')}`,
        `AuthorizedKeysFile ${file('user.pub')}`,
        'StrictModes no',
        'PermitRootLogin prohibit-password',
        'Subsystem sftp internal-sftp',
        '',
      ].join('\n'),
    )
    const script = `grep -v ^sshd: /etc/passwd >${file('passwd')}
echo sshd:x:65534:65534::/run/sshd:/usr/sbin/nologin >>${file('passwd')}
mount --bind ${file('passwd')} /etc/passwd
mount -t tmpfs tmpfs /run
mkdir -m 755 /run/sshd
export LD_LIBRARY_PATH=$(dirname "$(find ${OPENSSH} -name 'libwrap.so.0')")
exec ${SSHD} -D -e -f ${file('sshd.conf')}`
    const argv = ['unshare', '--mount', 'sh', '-ec', script]
    this.#commands.start(onHost(this.#chain, 'server', ...argv), file('sshd.log'))
    await until('the ssh server', 20_000, async () =>
      (await readFile(file('sshd.log'), 'utf8')).includes('listening') ? true : undefined,
    )
  }

  #scp(): string[] {
    const options = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'IdentitiesOnly=yes']
    const flags = [
      '-q',
      '-P',
      String(SSH),
      '-i',
      join(this.#home, 'user'),
      ...options.flatMap((o) => ['-o', o]),
    ]
    const file = `root@${ADDRESS.server}:${join(this.#home, 'file')}`
    return onHost(this.#chain, 'plain', 'scp', ...flags, file, '/dev/null')
  }
}
