/**
 * The yardstick of the kernel plane: the same telescope, put together by hand with ip(8) and fixed keys, no IKE
 * and no daemon, in the same namespaces after the daemons have gone. What a download through it reaches is what
 * this kernel can do.
 */
import { createHash } from 'node:crypto'
import type { EspCipher } from '#crypto/suites'
import type { Commands } from '#demo/command'
import { type Host, hostOf, inNamespace, type Topology } from '#demo/topology'

export interface Handmade {
  /** Bind applications to it. */
  readonly privateAddress: string
  remove(): Promise<void>
}

const DEVICE = 'hand0'

/** Builds a telescope from the client through `path`. Needs a kernel with ESP and namespaces without daemons. */
export async function buildByHand(
  commands: Commands,
  topology: Topology,
  path: readonly string[],
  cipher: EspCipher,
): Promise<Handmade> {
  const client = hostOf(topology, 'client')
  const nodes = path.map((name) => hostOf(topology, name))
  const lines = new Map<Host, string[]>([client, ...nodes].map((host) => [host, []]))
  const say = (host: Host, line: string): void => void lines.get(host)!.push(line)
  const both = (hosts: readonly Host[], spi: number, reqid: number, from: string, to: string): void => {
    for (const host of hosts) say(host, `xfrm state add ${state(cipher, from, to, spi, reqid)}`)
  }

  for (const host of lines.keys()) {
    say(host, `link add ${DEVICE} type dummy`)
    say(host, `link set ${DEVICE} up`)
  }
  nodes.forEach((node, n) => {
    say(node, `route add ${pool(n)} dev ${DEVICE}`)
    const next = nodes[n + 1]
    if (next === undefined) return
    both([next, node], 0x9000 + 2 * n, 900 + n, node.address, next.address)
    both([node, next], 0x9001 + 2 * n, 900 + n, next.address, node.address)
    const forth = template(node.address, next.address, 900 + n)
    const back = template(next.address, node.address, 900 + n)
    say(node, `xfrm policy add src ${pool(n)} dst ${next.address} dir out priority 2000 ${forth}`)
    say(node, `xfrm policy add src ${next.address} dst ${pool(n)} dir fwd priority 2000 ${back}`)
    say(next, `xfrm policy add src ${next.address} dst ${pool(n)} dir out priority 2000 ${back}`)
    say(next, `xfrm policy add src ${pool(n)} dst ${next.address} dir in priority 2000 ${forth}`)
  })

  const out: string[] = []
  const into: string[] = []
  nodes.forEach((node, n) => {
    const source = n === 0 ? client.address : leased(n - 1)
    both([node, client], 0x1000 + 2 * n, 100 + n, source, node.address)
    both([client, node], 0x1001 + 2 * n, 100 + n, node.address, source)
    out.unshift(template(source, node.address, 100 + n))
    into.unshift(template(node.address, source, 100 + n))
    const before = nodes[n - 1]
    const via = before && [
      template(before.address, node.address, 899 + n),
      template(node.address, before.address, 899 + n),
    ]
    say(client, `addr add ${leased(n)}/32 dev ${DEVICE}`)
    say(client, `xfrm policy add src ${leased(n)} dst 0.0.0.0/0 dir out priority 1000 ${out.join(' ')}`)
    say(client, `xfrm policy add src 0.0.0.0/0 dst ${leased(n)} dir in priority 1000 ${into.join(' ')}`)
    say(
      node,
      `xfrm policy add src ${leased(n)} dst 0.0.0.0/0 dir fwd priority 1000 ${out[0]} ${via?.[0] ?? ''}`,
    )
    say(
      node,
      `xfrm policy add src 0.0.0.0/0 dst ${leased(n)} dir out priority 1000 ${into[0]} ${via?.[1] ?? ''}`,
    )
  })
  const server = hostOf(topology, 'server')
  say(client, `route add ${server.address} via ${client.gateway} mtu 1280 advmss 1240`)

  await batch(commands, lines)
  const exit = nodes.at(-1)!
  const masquerade = [
    'POSTROUTING',
    '-s',
    pool(nodes.length - 1),
    '-o',
    'eth0',
    '-m',
    'policy',
    '--dir',
    'out',
    '--pol',
    'none',
    '-j',
    'MASQUERADE',
  ]
  const iptables = (verb: '-A' | '-D'): Promise<unknown> =>
    commands.run(inNamespace(exit.namespace, 'iptables-legacy', '-t', 'nat', verb, ...masquerade), {
      always: verb === '-D',
    })
  const forwarding = nodes.map((node) =>
    inNamespace(
      node.namespace,
      'sysctl',
      '-qw',
      'net.ipv4.ip_forward=1',
      'net.ipv4.conf.all.rp_filter=0',
      'net.ipv4.conf.eth0.rp_filter=0',
    ),
  )
  await Promise.all([iptables('-A'), ...forwarding.map((argv) => commands.run(argv))])

  return {
    privateAddress: leased(nodes.length - 1),
    remove: async () => {
      const undo = new Map(
        [...lines.keys()].map((host) => [
          host,
          ['xfrm policy flush', 'xfrm state flush', `link del ${DEVICE}`],
        ]),
      )
      undo.get(client)!.push(`route del ${server.address}`)
      await batch(commands, undo)
      await iptables('-D')
    },
  }
}

const pool = (n: number): string => `10.${200 + n}.0.0/16`
const leased = (n: number): string => `10.${200 + n}.0.2`

const template = (from: string, to: string, reqid: number): string =>
  `tmpl src ${from} dst ${to} proto esp reqid ${reqid} mode tunnel`

const ALGORITHMS: Record<EspCipher, readonly [name: string, octets: number]> = {
  'aes-128-gcm-16': ['rfc4106(gcm(aes))', 20],
  'aes-256-gcm-16': ['rfc4106(gcm(aes))', 36],
  'chacha20-poly1305': ['rfc7539esp(chacha20,poly1305)', 36],
}

function state(cipher: EspCipher, from: string, to: string, spi: number, reqid: number): string {
  const [name, octets] = ALGORITHMS[cipher]
  const key = createHash('sha512')
    .update(`${from} ${to} ${spi}`)
    .digest('hex')
    .slice(0, 2 * octets)
  return `src ${from} dst ${to} proto esp spi ${spi} reqid ${reqid} mode tunnel flag esn replay-window 256 flag noecn extra-flag dont-encap-dscp aead ${name} 0x${key} 128`
}

/** One ip(8) per namespace: in User-Mode Linux starting a program is what costs. */
async function batch(commands: Commands, lines: ReadonlyMap<Host, readonly string[]>): Promise<void> {
  await Promise.all(
    [...lines].map(([host, commandsOfHost]) =>
      commands.run(['ip', '-n', host.namespace, '-batch', '-'], { input: `${commandsOfHost.join('\n')}\n` }),
    ),
  )
}
