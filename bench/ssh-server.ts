/** Debian's ssh server, unpacked by deploy/setup.sh, for a host that is a network namespace. */
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { type Commands, until } from '#demo/command'

export const SSH_PORT = 2222
/** With a library of its own. */
const OPENSSH = resolve('node_modules/.cache/openssh')
const SSHD = join(OPENSSH, 'usr/sbin/sshd')

/** Keys of the servers and of the one user who may log in. `folder` is made. */
export class SshServers {
  readonly #commands: Commands
  readonly #folder: string

  constructor(commands: Commands, folder: string) {
    this.#commands = commands
    this.#folder = folder
  }

  /** False: there is no program. */
  static async isInstalled(): Promise<boolean> {
    return await stat(SSHD).then(
      () => true,
      () => false,
    )
  }

  async prepare(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    for (const name of ['host', 'user'])
      await this.#commands.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', this.#file(name)])
  }

  /** Arguments of ssh(1) and scp(1), but for the port, which they write differently. */
  get options(): string[] {
    const options = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'LogLevel=ERROR']
    return ['-i', this.#file('user'), '-o', 'IdentitiesOnly=yes', ...options.flatMap((o) => ['-o', o])]
  }

  /**
   * It sees accounts and a /run of its own: nothing of this machine's ssh is read or changed.
   * @param inside what runs a command on the host
   */
  async start(name: string, address: string, inside: (...argv: string[]) => string[]): Promise<void> {
    const [config, accounts, log] = ['conf', 'passwd', 'log'].map((end) => this.#file(`${name}.${end}`))
    await writeFile(
      config!,
      [
        `Port ${SSH_PORT}`,
        `ListenAddress ${address}`,
        `HostKey ${this.#file('host')}`,
        `AuthorizedKeysFile ${this.#file('user.pub')}`,
        'StrictModes no',
        'PermitRootLogin prohibit-password',
        'Subsystem sftp internal-sftp',
        '',
      ].join('\n'),
    )
    const script = `grep -v ^sshd: /etc/passwd >${accounts}
echo sshd:x:65534:65534::/run/sshd:/usr/sbin/nologin >>${accounts}
mount --bind ${accounts} /etc/passwd
mount -t tmpfs tmpfs /run
mkdir -m 755 /run/sshd
export LD_LIBRARY_PATH=$(dirname "$(find ${OPENSSH} -name 'libwrap.so.0')")
exec ${SSHD} -D -e -f ${config}`
    this.#commands.start(inside('unshare', '--mount', 'sh', '-ec', script), log!)
    await until(`the ssh server of ${name}`, 20_000, async () =>
      (await readFile(log!, 'utf8')).includes('listening') ? true : undefined,
    )
  }

  #file(name: string): string {
    return join(this.#folder, name)
  }
}
