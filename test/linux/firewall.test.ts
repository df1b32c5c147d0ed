/**
 * The rule sets in a real packet filter, in network namespaces, through both front ends.
 *
 *   guard:   client ---- eth0 ---- world       world holds entry 198.18.10.1, directory 198.18.50.1,
 *              |                               and a stranger 198.18.60.1; tel0 stands for the TUN
 *             tel0
 *
 *   exit:    inside -- tel0 -- exit -- eth0 -- world     inside holds 10.64.16.5 and .6 of pool 10.64.16.0/20
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { ip, prefix } from '#base/ip'
import { exitPolicyOf, parseExitPolicy } from '#nat/exit-policy'
import { DAEMON_MARK, type FilterContext, type RuleSet } from '#nat/rules'
import { clientRules, nodeRules } from '#nat/rulesets'

const APPLY = fileURLToPath(new URL('./firewall-apply.ts', import.meta.url))
const TAG = `fw${process.pid}`
const children = new Set<ChildProcess>()
const namespaces = new Set<string>()

const missing = whyNot()

for (const backend of ['nft', 'iptables-legacy'] as const) {
  describe(`${backend}`, { skip: missing ?? false }, () => {
    test('guard: nothing leaves in clear, the entry and the directory can be reached', (t) =>
      guard(t.name, backend))
    test('the rules for XFRM are taken and closed as well', () => closedWithXfrm(backend))
    test('exit: policy, masquerade, replies only', (t) => exit(t.name, backend))
  })
}

after(() => {
  for (const child of children) child.kill('SIGKILL')
  for (const name of namespaces) spawnSync('ip', ['netns', 'del', name])
})

async function guard(_name: string, backend: 'nft' | 'iptables-legacy'): Promise<void> {
  const client = namespace('c')
  const world = namespace('w')
  link(client, '198.18.1.1/24', world, '198.18.1.254/24')
  for (const address of ['198.18.10.1', '198.18.50.1', '198.18.60.1'])
    run(world, `ip addr add ${address}/32 dev lo`)
  run(client, 'ip route add default via 198.18.1.254')
  run(client, 'ip link add tel0 type veth peer name tel1')
  run(client, 'ip link set tel1 up')
  run(client, 'ip link set tel0 arp off up')
  run(client, 'ip addr add 10.64.0.5/32 dev tel0')
  run(client, 'ip route add 203.0.113.0/24 dev tel0 src 10.64.0.5')
  await tcpServer(world, 9030)
  const context: FilterContext = { plane: 'userspace', device: 'tel0', address: ip('198.18.1.1') }
  const rules = clientRules({
    entries: [ip('198.18.10.1')],
    directories: [{ address: ip('198.18.50.1'), port: 9030 }],
    context,
  })

  assert.ok(ping(client, '198.18.60.1', PATIENCE), 'the plain path works before the guard')
  const empty = clientRules({ entries: [], directories: [], context })
  apply(client, { backend, context, apply: empty })
  assert.ok(!ping(client, '198.18.10.1'), 'closed first')
  // A successor replaces what a killed predecessor left.
  apply(client, { backend, context, apply: rules })
  apply(client, { backend, context, apply: rules })

  const wire = await capture(world, 'eth0')
  const inside = await capture(client, 'tel0')
  ping(client, '198.18.60.1')
  ping(client, '198.18.10.1')
  udp(client, '198.18.60.1', 53)
  udp(client, '198.18.60.1', 500, DAEMON_MARK, 500)
  udp(client, '198.18.10.1', 500, 0, 500)
  udp(client, '198.18.10.1', 53, DAEMON_MARK)
  udp(client, '198.18.10.1', 4500, 0, 4500)
  udp(client, '198.18.10.1', 500, DAEMON_MARK, 500)
  esp(client, '198.18.60.1')
  esp(client, '198.18.10.1')
  assert.equal(tcp(client, '198.18.50.1', 9030), undefined, 'only the daemon reaches the directory')
  assert.match(reach(client, '198.18.50.1', 9030, DAEMON_MARK) ?? '', /^198\.18\.1\.1 /)
  udp(client, '203.0.113.7', 53)
  assert.ok(ping(client, '127.0.0.1', PATIENCE), 'loopback works')
  assert.ok(!ping(world, '198.18.1.1'), 'nobody reaches the client')
  udp(world, '198.18.1.1', 53)
  const service = await udpServer(client, 53)
  udp(world, '198.18.1.1', 53, 0, 500, '198.18.10.1')
  udp(world, '198.18.1.1', 53, 0, 4500, '198.18.10.1')
  udp(client, '127.0.0.1', 53, 0, 40_053)
  assert.equal(await service.heard(), '127.0.0.1 40053\n', 'the entry reaches no port but that of IKE')

  const seen = new Set((await wire.stop()).map(summary))
  for (const allowed of ['198.18.10.1 udp 500', '198.18.10.1 esp', '198.18.50.1 tcp 9030'])
    assert.ok(seen.has(allowed), `${allowed} is missing in ${[...seen].join(', ')}`)
  assert.equal(seen.size, 3, `nothing else left: ${[...seen].join(', ')}`)
  assert.deepEqual((await inside.stop()).map(summary), ['203.0.113.7 udp 53'])

  run(client, 'ip -6 addr add 2001:db8::1/64 dev eth0 nodad')
  run(world, 'ip -6 addr add 2001:db8::2/64 dev eth0 nodad')
  const six = await capture(world, 'eth0')
  assert.ok(!ping(client, '2001:db8::2'), 'no IPv6')
  assert.deepEqual(
    (await six.stop()).filter((line) => line.includes('echo request')),
    [],
  )

  apply(client, { backend, context, clear: 'ippriv_client' })
  apply(client, { backend, context, clear: 'ippriv_client' })
  assert.ok(ping(client, '198.18.60.1', PATIENCE), 'cleared')
  assert.doesNotMatch(`${run(client, 'nft list ruleset')}${run(client, 'iptables-legacy-save')}`, /ippriv/i)
}

function closedWithXfrm(backend: 'nft' | 'iptables-legacy'): void {
  const client = namespace('s')
  const world = namespace('r')
  link(client, '198.18.1.1/24', world, '198.18.1.254/24')
  const context: FilterContext = { plane: 'xfrm', device: 'tel0', address: ip('198.18.1.1') }
  assert.ok(ping(client, '198.18.1.254', PATIENCE))
  apply(client, { backend, context, apply: clientRules({ entries: [], directories: [], context }) })
  assert.ok(!ping(client, '198.18.1.254'), 'no IPsec policy: not into the telescope')
}

async function exit(_name: string, backend: 'nft' | 'iptables-legacy'): Promise<void> {
  const inside = namespace('i')
  const node = namespace('x')
  const world = namespace('d')
  link(node, '198.18.30.1/24', world, '198.18.30.254/24')
  run(inside, `ip link add eth0 type veth peer name tel0 netns ${node}`)
  run(inside, 'ip link set eth0 up')
  run(node, 'ip link set tel0 up')
  for (const address of ['10.64.16.5', '10.64.16.6']) run(inside, `ip addr add ${address}/32 dev eth0`)
  run(inside, 'ip route add default dev eth0 src 10.64.16.5')
  run(node, 'ip route add 10.64.16.0/20 dev tel0')
  run(node, 'ip route add default via 198.18.30.254')
  // veth does ARP, a TUN does not.
  run(
    node,
    'sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.tel0.proxy_arp=1 net.ipv4.neigh.tel0.proxy_delay=0 net.ipv4.conf.all.rp_filter=0',
  )
  for (const address of ['198.18.40.1', '198.18.40.2', '192.168.9.9'])
    run(world, `ip addr add ${address}/32 dev lo`)
  run(world, 'ip route add 10.64.16.0/20 via 198.18.30.1')
  for (const port of [80, 22]) await tcpServer(world, port)
  await tcpServer(node, 8080)
  await tcpServer(inside, 5000)

  const policy = parseExitPolicy([
    'reject 198.18.40.2',
    'accept 0.0.0.0/0 tcp 80-443',
    'accept 0.0.0.0/0 icmp',
  ])
  assert.ok(policy.ok)
  const context: FilterContext = { plane: 'userspace', device: 'tel0', address: ip('198.18.30.1') }
  const rules = nodeRules({
    poolSpace: prefix('10.64.0.0/10'),
    pool: prefix('10.64.16.0/20'),
    exitPolicy: exitPolicyOf(policy.value),
    roles: ['entry', 'middle', 'exit'],
    context,
  })
  apply(node, { backend, context, apply: rules })
  apply(node, { backend, context, apply: rules })

  const wire = await capture(world, 'eth0')
  assert.match(reach(inside, '198.18.40.1', 80) ?? '', /^198\.18\.30\.1 /, 'behind the address of the exit')
  assert.ok(ping(inside, '198.18.40.1', PATIENCE))
  assert.equal(tcp(inside, '198.18.40.1', 22), undefined, 'a port the policy does not name')
  assert.equal(tcp(inside, '198.18.40.2', 80), undefined, 'a destination the policy refuses')
  assert.equal(tcp(inside, '192.168.9.9', 80), undefined, 'a protected destination')
  assert.equal(tcp(inside, '198.18.30.1', 8080), undefined, 'the node itself is no destination')
  assert.ok(!ping(inside, '198.18.30.1'))
  assert.equal(tcp(world, '10.64.16.5', 5000), undefined, 'nobody opens a connection to a client')
  assert.ok(!ping(world, '10.64.16.5'))
  assert.match(
    reach(world, '198.18.30.1', 8080) ?? '',
    /^198\.18\.30\.254 /,
    "the node's own services still work",
  )
  assert.match(
    reach(node, '198.18.40.1', 22, 0, 45_678) ?? '',
    /^198\.18\.30\.1 45678$/,
    'its own traffic is not touched',
  )
  const lines = await wire.stop()
  assert.ok(
    !lines.some((line) => / IP 10\.64\./.test(line)),
    `a private address is on the wire: ${lines.join('\n')}`,
  )
  const syn = lines.find((line) => line.includes('> 198.18.40.1.80: Flags [S]'))
  assert.match(syn ?? 'no SYN', /mss 1240/)

  const pool = await capture(inside, 'eth0')
  run(node, 'ip addr add 10.64.16.1/32 dev lo')
  assert.ok(!ping(world, '10.64.16.6'))
  run(world, 'ip addr add 10.64.16.77/32 dev lo')
  spawnSync('ip', ['netns', 'exec', world, 'ping', '-c1', '-W0.4', '-I', '10.64.16.77', '198.18.30.1'])
  assert.deepEqual(
    (await pool.stop()).filter((line) => line.includes('ICMP echo')),
    [],
    'neither injected nor forged packets reach a client',
  )
}

// ------------------------------------------------------------------------------------------------- the lab

function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root for network namespaces'
  for (const tool of ['ip', 'nft', 'iptables-legacy', 'tcpdump', 'ping', 'perl'])
    if (spawnSync('sh', ['-c', `command -v ${tool}`]).status !== 0) return `needs ${tool}`
  if (!existsSync('/proc/net/nf_conntrack') && !existsSync('/proc/sys/net/netfilter'))
    return 'needs conntrack'
  return undefined
}

function namespace(suffix: string): string {
  const name = `${TAG}${suffix}`
  spawnSync('ip', ['netns', 'del', name])
  execFileSync('ip', ['netns', 'add', name])
  namespaces.add(name)
  run(name, 'ip link set lo up')
  return name
}

function link(a: string, addressA: string, b: string, addressB: string): void {
  run(a, `ip link add eth0 type veth peer name eth0 netns ${b}`)
  for (const [name, address] of [
    [a, addressA],
    [b, addressB],
  ] as const) {
    run(name, `ip addr add ${address} dev eth0`)
    run(name, 'ip link set eth0 up')
  }
}

const run = (name: string, command: string): string =>
  execFileSync('ip', ['netns', 'exec', name, ...command.split(' ')], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })

interface Order {
  readonly backend: string
  readonly context: FilterContext
  readonly apply?: RuleSet
  readonly clear?: string
}
const apply = (name: string, order: Order): void => {
  execFileSync('ip', ['netns', 'exec', name, process.execPath, APPLY, JSON.stringify(order)], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
}

/** Seconds: what must work may be slow on a busy machine; what must not work is not waited for that long. */
const PATIENCE = 5
const BRIEF = 0.5

const ping = (name: string, address: string, seconds = BRIEF): boolean =>
  spawnSync('ip', ['netns', 'exec', name, 'ping', '-c1', `-W${seconds}`, '-q', address]).status === 0

const perl = (name: string, script: string, args: readonly (string | number)[]) =>
  spawnSync(
    'ip',
    ['netns', 'exec', name, 'perl', '-MSocket', '-MIO::Handle', '-e', script, ...args.map(String)],
    {
      encoding: 'utf8',
      timeout: 12_000,
    },
  )

/** SO_MARK is 36 on Linux (asm-generic/socket.h). */
const udp = (
  name: string,
  address: string,
  port: number,
  mark = 0,
  sourcePort = 0,
  source = '0.0.0.0',
): void => {
  const script = `socket(S,AF_INET,SOCK_DGRAM,17);setsockopt(S,1,36,pack("i",$ARGV[2]));
    bind(S,sockaddr_in($ARGV[3],inet_aton($ARGV[4]))) or die "bind: $!";
    send(S,"hello",0,sockaddr_in($ARGV[1],inet_aton($ARGV[0])))`
  perl(name, script, [address, port, mark, sourcePort, source])
}

/** Listens on every address, and says what it heard in the end. */
async function udpServer(name: string, port: number): Promise<{ heard(): Promise<string> }> {
  const script = `socket(S,AF_INET,SOCK_DGRAM,17);bind(S,sockaddr_in($ARGV[0],INADDR_ANY)) or die "bind: $!";
    $|=1;alarm 120;print "up\n";while(defined(my $p=recv(S,my $b,99,0))){my($n,$a)=sockaddr_in($p);print inet_ntoa($a)." $n\n"}`
  const child = start(name, ['perl', '-MSocket', '-e', script, String(port)])
  child.stdout!.setEncoding('utf8')
  await once(child.stdout!, 'data')
  let printed = ''
  child.stdout!.on('data', (text: string) => {
    printed += text
  })
  return {
    async heard() {
      await delay(300)
      child.kill('SIGKILL')
      return printed
    },
  }
}

const esp = (name: string, address: string): void => {
  perl(
    name,
    'socket(S,AF_INET,SOCK_RAW,50);send(S,"\\0\\0\\1\\1"."x"x36,0,sockaddr_in(0,inet_aton($ARGV[0])))',
    [address],
  )
}

/** Connects and gives the line the server sends: the address and port it saw. Undefined: refused or silent. */
const tcp = (
  name: string,
  address: string,
  port: number,
  mark = 0,
  sourcePort = 0,
  seconds = BRIEF,
): string | undefined => {
  const script = `socket(S,AF_INET,SOCK_STREAM,6);setsockopt(S,1,36,pack("i",$ARGV[2]));
    bind(S,sockaddr_in($ARGV[3],INADDR_ANY)) if $ARGV[3];
    S->blocking(0);connect(S,sockaddr_in($ARGV[1],inet_aton($ARGV[0])));vec(my $w,fileno(S),1)=1;
    select(undef,$w,undef,$ARGV[4])==1 && unpack("i",getsockopt(S,SOL_SOCKET,SO_ERROR))==0 or exit 1;S->blocking(1);alarm 4;print scalar <S>`
  const result = perl(name, script, [address, port, mark, sourcePort, seconds])
  return result.status === 0 && result.stdout !== '' ? result.stdout.trim() : undefined
}

const reach = (name: string, address: string, port: number, mark = 0, sourcePort = 0): string | undefined =>
  tcp(name, address, port, mark, sourcePort, PATIENCE)

/** Tells every client its address and port as seen here. */
async function tcpServer(name: string, port: number): Promise<void> {
  const script = `socket(S,AF_INET,SOCK_STREAM,6);setsockopt(S,SOL_SOCKET,SO_REUSEADDR,pack("i",1));
    bind(S,sockaddr_in($ARGV[0],INADDR_ANY));listen(S,8);alarm 120;$|=1;print "up\n";
    while(my $p=accept(C,S)){my($n,$a)=sockaddr_in($p);syswrite(C,inet_ntoa($a)." $n\\n");close C}`
  await once(start(name, ['perl', '-MSocket', '-e', script, String(port)]).stdout!, 'data')
}

function start(name: string, command: readonly string[]): ChildProcess {
  const child = spawn('ip', ['netns', 'exec', name, ...command], { stdio: ['ignore', 'pipe', 'pipe'] })
  children.add(child)
  child.on('close', () => children.delete(child))
  return child
}

/** Packets that arrive at a device of a namespace (or leave through it, for tel0), as tcpdump prints them. */
async function capture(name: string, device: string): Promise<{ stop(): Promise<string[]> }> {
  const direction = device === 'tel0' ? 'out' : 'in'
  const child = start(name, [
    'tcpdump',
    '-lnn',
    '--immediate-mode',
    '-Q',
    direction,
    '-i',
    device,
    'ip',
    'or',
    'ip6',
  ])
  let printed = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    printed += text
  })
  await new Promise<void>((resolve) => {
    child.stderr!.setEncoding('utf8').on('data', (text: string) => text.includes('listening') && resolve())
    child.on('close', () => resolve())
  })
  return {
    async stop() {
      await delay(300)
      const closed = new Promise((resolve) => child.on('close', resolve))
      child.kill('SIGTERM')
      await closed
      return printed.split('\n').filter((line) => line !== '')
    },
  }
}

/** "destination protocol port" of a line of tcpdump. */
function summary(line: string): string {
  const match = /> (\d+\.\d+\.\d+\.\d+)(?:\.(\d+))?: (.*)/.exec(line)
  if (match === null) return line
  const [, address, port, rest] = match
  if (rest!.startsWith('ESP')) return `${address} esp`
  return `${address} ${rest!.startsWith('Flags') ? 'tcp' : port === undefined ? 'icmp' : 'udp'} ${port ?? ''}`.trim()
}
