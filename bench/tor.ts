/**
 * A private tor network on the chain: Debian's tor, three relays that are directory authorities as well, and a client
 * on `plain`. Only the test network's timing differs from the public network; nothing about relaying does.
 */

import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { type Commands, until } from '#demo/command'
import { ADDRESS, CHAIN_NODES, type Chain, onHost } from './chain.ts'

export const SOCKS_PORT = 9050
const OR_PORT = 5000
const DIR_PORT = 7000
/** The client's control port is a Unix socket, which is no matter of namespaces. */
const CONTROL = 'control'

type Relay = (typeof CHAIN_NODES)[number]

export class TorNetwork {
  readonly #commands: Commands
  readonly #chain: Chain
  readonly #home: string
  #fingerprints = new Map<Relay, string>()

  /** `home` becomes full of keys and state. */
  constructor(commands: Commands, chain: Chain, home: string) {
    this.#commands = commands
    this.#chain = chain
    this.#home = home
  }

  /** Resolves when the client has built its first circuit. */
  async start(): Promise<void> {
    const authorities = await Promise.all(CHAIN_NODES.map((relay) => this.#prepare(relay)))
    await this.#launch('plain', [...common(this.#data('plain')), ...authorities, ...this.#clientLines()])
    await Promise.all(
      CHAIN_NODES.map((relay) =>
        this.#launch(relay, [...common(this.#data(relay)), ...authorities, ...relayLines(relay)]),
      ),
    )
    await until('a circuit of the private tor network', 180_000, async () => {
      const log = await readFile(this.#log('plain'), 'utf8')
      return log.includes('Bootstrapped 100%') ? true : undefined
    })
  }

  /** Builds one circuit through the three relays. Returns milliseconds until it was there. */
  async buildCircuit(): Promise<number> {
    const control = connect(join(this.#data('plain'), CONTROL))
    await once(control, 'connect')
    try {
      const lines = new Lines(control)
      control.write('AUTHENTICATE\r\nSETEVENTS CIRC\r\n')
      await lines.next(/^250/)
      await lines.next(/^250/)
      const began = performance.now()
      const path = CHAIN_NODES.map((relay) => `$${this.#fingerprints.get(relay)}`).join(',')
      control.write(`EXTENDCIRCUIT 0 ${path}\r\n`)
      const id = /^250 EXTENDED (\d+)/.exec(await lines.next(/^(250 EXTENDED|5)/))?.[1]
      if (id === undefined) throw new Error('tor did not take the path')
      const end = await lines.next(new RegExp(`^650 CIRC ${id} (BUILT|FAILED|CLOSED)`))
      const duration = performance.now() - began
      if (!end.includes('BUILT')) throw new Error(end)
      control.write(`CLOSECIRCUIT ${id}\r\n`)
      await lines.next(/^250/)
      return duration
    } finally {
      control.destroy()
    }
  }

  #data(host: Relay | 'plain'): string {
    return join(this.#home, host)
  }

  #log(host: Relay | 'plain'): string {
    return join(this.#home, `${host}.log`)
  }

  /** Keys of a relay and authority. Returns its line for everybody's configuration. */
  async #prepare(relay: Relay): Promise<string> {
    const data = this.#data(relay)
    const keys = join(data, 'keys')
    await mkdir(keys, { recursive: true, mode: 0o700 })
    const files = ['identity_key', 'signing_key', 'certificate'].map((part) =>
      join(keys, `authority_${part}`),
    )
    const [identity, signing, certificate] = files
    const gencert = ['tor-gencert', '--create-identity-key', '--passphrase-fd', '0', '-m', '2']
    const names = ['-i', identity!, '-s', signing!, '-c', certificate!, '-a', `${ADDRESS[relay]}:${DIR_PORT}`]
    await this.#commands.run([...gencert, ...names], { input: 'bench\n' })
    const placeholder = `placeholder 127.0.0.1:1 ${'0'.repeat(40)}`
    const said = await this.#commands.run([
      ...['tor', '--ignore-missing-torrc', '-f', join(data, 'none'), '--list-fingerprint', '--quiet'],
      ...['--DataDirectory', data, '--ORPort', '1', '--DirAuthority', placeholder],
    ])
    const fingerprint = said.stdout.trim().split('\n').at(-1)!.replace(/^\S+ /, '').replaceAll(' ', '')
    this.#fingerprints.set(relay, fingerprint)
    const v3 = /^fingerprint ([0-9A-F]{40})/m.exec(await readFile(certificate!, 'utf8'))![1]
    return `DirAuthority ${relay} orport=${OR_PORT} no-v2 v3ident=${v3} ${ADDRESS[relay]}:${DIR_PORT} ${fingerprint}`
  }

  async #launch(host: Relay | 'plain', lines: readonly string[]): Promise<void> {
    const file = join(this.#home, `${host}.torrc`)
    await mkdir(this.#data(host), { recursive: true, mode: 0o700 })
    await writeFile(file, `${lines.join('\n')}\n`)
    this.#commands.start(onHost(this.#chain, host, 'tor', '-f', file), this.#log(host))
  }

  #clientLines(): string[] {
    const [entry, middle, exit] = CHAIN_NODES.map((relay) => `$${this.#fingerprints.get(relay)}`)
    return [
      `Address ${ADDRESS.plain}`,
      `SocksPort ${ADDRESS.plain}:${SOCKS_PORT} IsolateSOCKSAuth`,
      `ControlSocket ${join(this.#data('plain'), CONTROL)}`,
      `EntryNodes ${entry}`,
      `MiddleNodes ${middle}`,
      `ExitNodes ${exit}`,
      'StrictNodes 1',
      'WarnUnsafeSocks 0',
      // With one entry there is no second leg.
      'ConfluxEnabled 0',
    ]
  }
}

const common = (data: string): string[] => [
  'TestingTorNetwork 1',
  `DataDirectory ${data}`,
  'Log notice stdout',
  'ShutdownWaitLength 0',
  'RunAsDaemon 0',
  'EnforceDistinctSubnets 0',
  'PathsNeededToBuildCircuits 0.25',
  'TestingDirAuthVoteExit *',
  'TestingDirAuthVoteGuard *',
]

const relayLines = (relay: Relay): string[] => [
  `Nickname ${relay}`,
  `Address ${ADDRESS[relay]}`,
  `ORPort ${ADDRESS[relay]}:${OR_PORT}`,
  `DirPort ${ADDRESS[relay]}:${DIR_PORT}`,
  'SocksPort 0',
  'ExitRelay 1',
  'ExitPolicy accept *:*',
  'ExitPolicyRejectPrivate 0',
  'AssumeReachable 1',
  'AuthoritativeDirectory 1',
  'V3AuthoritativeDirectory 1',
  'ContactInfo bench@localhost',
  'V3AuthVotingInterval 10 seconds',
  'V3AuthVoteDelay 2 seconds',
  'V3AuthDistDelay 2 seconds',
  'TestingV3AuthInitialVotingInterval 10 seconds',
  'TestingV3AuthInitialVoteDelay 2 seconds',
  'TestingV3AuthInitialDistDelay 2 seconds',
]

/** Lines of the control port, awaited by what they look like. */
class Lines {
  readonly #waiting: string[] = []
  #text = ''
  #wake: () => void = () => undefined

  constructor(socket: Socket) {
    socket.on('data', (chunk) => {
      const lines = (this.#text + chunk.toString()).split('\r\n')
      this.#text = lines.pop()!
      this.#waiting.push(...lines)
      this.#wake()
    })
    socket.on('close', () => {
      this.#waiting.push('599 the control port was closed')
      this.#wake()
    })
  }

  async next(pattern: RegExp): Promise<string> {
    for (;;) {
      for (let line = this.#waiting.shift(); line !== undefined; line = this.#waiting.shift()) {
        if (pattern.test(line)) return line
        if (line.startsWith('599')) throw new Error(line)
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}
