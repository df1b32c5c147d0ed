/**
 * OpenVPN from `plain` to `server`, over UDP and over TCP: what a tunnel does to TCP when it runs TCP itself (the
 * paper's Figure 2). One hop and a static key: at the speeds of a narrow cable neither matters.
 */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type Commands, until } from '#demo/command'
import { ADDRESS, type Chain, onHost } from './chain.ts'

/** The server's address inside each tunnel. */
export const TUNNEL = { 'openvpn-udp': '10.8.1.1', 'openvpn-tcp': '10.8.2.1' } as const

export class OpenVpn {
  readonly #commands: Commands
  readonly #chain: Chain
  readonly #home: string

  constructor(commands: Commands, chain: Chain, home: string) {
    this.#commands = commands
    this.#chain = chain
    this.#home = home
  }

  /** Resolves when both tunnels answer. */
  async start(): Promise<void> {
    await mkdir(this.#home, { recursive: true, mode: 0o700 })
    const key = join(this.#home, 'static.key')
    await this.#commands.run(['openvpn', '--genkey', 'secret', key])
    for (const [name, server] of Object.entries(TUNNEL)) {
      const tcp = name === 'openvpn-tcp'
      const client = server.replace(/1$/, '2')
      const common = [
        '--dev',
        tcp ? 'ovt' : 'ovu',
        '--dev-type',
        'tun',
        '--secret',
        key,
        '--cipher',
        'AES-256-CBC',
      ]
      const port = ['--port', tcp ? '1195' : '1194']
      const verb = ['--verb', '1', '--ping', '5']
      this.#start('server', name, [
        ...common,
        ...port,
        ...verb,
        '--proto',
        tcp ? 'tcp-server' : 'udp',
        '--ifconfig',
        server,
        client,
      ])
      const remote = ['--remote', ADDRESS.server, '--nobind', '--ifconfig', client, server]
      this.#start('plain', name, [
        ...common,
        ...port,
        ...verb,
        '--proto',
        tcp ? 'tcp-client' : 'udp',
        ...remote,
      ])
    }
    for (const server of Object.values(TUNNEL))
      await until(`the tunnel to ${server}`, 30_000, async () => {
        const ping = onHost(this.#chain, 'plain', 'ping', '-c', '1', '-W', '1', server)
        return (await this.#commands.run(ping, { check: false })).code === 0 ? true : undefined
      })
  }

  #start(host: 'plain' | 'server', name: string, args: readonly string[]): void {
    this.#commands.start(
      onHost(this.#chain, host, 'openvpn', ...args),
      join(this.#home, `${host}-${name}.log`),
    )
  }
}
