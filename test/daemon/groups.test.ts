/** Traffic of two users and of one destination, each by a circuit of its own or not at all. One network; tests follow each other. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { CommandResult } from '#demo/command'
import { inNamespace } from '#demo/topology'
import { Lab, unavailable } from './lab.ts'

const missing = unavailable()
const lab = new Lab(['alder', 'birch', 'cedar', 'dogwood', 'elm'])
const USER = { mail: 1001, news: 1002, nobodys: 1003 } as const
const GROUPS = ['default', 'mail', 'news', 'web'] as const
/** Milliseconds in which a worker counts what it took. */
const SETTLE = 1000
/** The server has it beside its own address; the group `web` is for it. */
const WEB = '198.18.40.129'

interface Status {
  readonly groups: readonly {
    readonly name: string
    readonly circuit: number | null
    readonly state: string
  }[]
  readonly circuits: readonly {
    readonly id: number
    readonly use: string
    readonly group: string | null
    readonly privateAddresses: readonly string[]
    readonly path: readonly string[]
    readonly traffic: readonly { readonly out: { readonly packets: number } }[]
  }[]
  readonly sas: readonly { readonly spi: number }[]
}

const allOpen = ({ groups }: Status): string | undefined =>
  groups.length === GROUPS.length && groups.every(({ state }) => state === 'open')
    ? undefined
    : JSON.stringify(groups)

before(async () => {
  if (missing) return
  // Two hops, so that four groups have an exit each.
  await lab.raise(2)
  lab.configure('client', {
    isolation: [
      { name: 'mail', user: USER.mail },
      { name: 'news', user: USER.news },
      { name: 'web', destination: `${WEB}/32` },
    ],
  })
  await lab.run('server', 'ip', 'addr', 'add', `${WEB}/24`, 'dev', 'eth0')
  await Promise.all([lab.startServer(), lab.startNetwork()])
  lab.start('client')
})

after(() => lab.down())

const as = (user: number, ...argv: readonly string[]): Promise<CommandResult> =>
  lab.run('client', 'setpriv', '--reuid', `${user}`, '--regid', `${user}`, '--clear-groups', ...argv)

/** The address that the server sees. */
async function seenAs(user: number): Promise<string> {
  const url = `http://${lab.host('server').address}/whoami`
  const { stdout, stderr } = await as(user, 'curl', '-sS', '--max-time', '10', url)
  assert.match(stdout, /^[0-9.]+\s*$/, stderr)
  return stdout.trim()
}

/** Packets that each group's circuit took so far, in the layer of the exit. */
function sentBy({ circuits }: Status): Map<string, number> {
  const inUse = circuits.filter(({ use }) => use === 'default' || use === 'group')
  return new Map(inUse.map(({ group, traffic }) => [group!, traffic.at(-1)?.out.packets ?? 0]))
}

/** Which groups' circuits took at least `count` packets because of `action`. Workers count when they come to it. */
async function busyAfter(count: number, action: () => Promise<unknown>): Promise<string[]> {
  const first = sentBy(await lab.status<Status>('client', allOpen))
  const busy = (status: Status): string[] =>
    [...sentBy(status)]
      .filter(([group, packets]) => packets - first.get(group)! >= count)
      .map(([group]) => group)
  await action()
  const isCounted = (status: Status) => allOpen(status) ?? (busy(status).length > 0 ? undefined : 'nothing')
  return busy(await lab.status<Status>('client', isCounted))
}

/** 20 datagrams, which nobody answers. */
const datagrams = (user: number, to: string): Promise<CommandResult> =>
  as(user, 'bash', '-c', `for i in $(seq 20); do echo x >/dev/udp/${to}/9999 || exit; done`)

test('each group has a circuit of its own, and the server sees another exit for each user', async (t) => {
  if (missing) return t.skip(missing)
  const { circuits } = await lab.status<Status>('client', allOpen)
  assert.deepEqual(circuits.map(({ group }) => group).sort(), [...GROUPS].sort())
  const addresses = circuits.flatMap(({ privateAddresses }) => privateAddresses)
  assert.equal(new Set(addresses).size, addresses.length)
  const exitOf = (group: string): string =>
    lab.host(circuits.find((circuit) => circuit.group === group)!.path.at(-1)!).address
  assert.equal(new Set(GROUPS.map(exitOf)).size, GROUPS.length, 'there are exits enough')
  const seen = [await seenAs(USER.mail), await seenAs(USER.news), await seenAs(USER.nobodys)]
  assert.deepEqual(seen, [exitOf('mail'), exitOf('news'), exitOf('default')])
  const listed = await lab.circuits()
  assert.match(listed.stdout, /group mail/)
})

test('packets go into the circuit of their group and into no other', async (t) => {
  if (missing) return t.skip(missing)
  const server = lab.host('server').address
  assert.deepEqual(await busyAfter(20, () => datagrams(USER.mail, server)), ['mail'])
  assert.deepEqual(await busyAfter(20, () => datagrams(USER.news, server)), ['news'])
  assert.deepEqual(await busyAfter(20, () => datagrams(USER.nobodys, server)), ['default'])
  assert.deepEqual(await busyAfter(20, () => datagrams(USER.nobodys, WEB)), ['web'])
  assert.deepEqual(await busyAfter(20, () => datagrams(USER.mail, WEB)), ['mail'], 'the first rule counts')
})

test('a group without a circuit: nothing of it arrives, and nothing is in clear; then it has another one', async (t) => {
  if (missing) return t.skip(missing)
  const status = await lab.status<Status>('client', allOpen)
  const old = status.groups.find(({ name }) => name === 'mail')!.circuit!
  const { router } = lab.topology
  // Circuits that stand go on, none is built: IKE with the entry is UDP, what is inside the telescope is not.
  const nft = (...words: string[]) => lab.commands.run(inNamespace(router, 'nft', ...words))
  await nft('add', 'table', 'ip', 'stuck')
  await nft('add chain ip stuck forward { type filter hook forward priority 0 ; }')
  await nft('add rule ip stuck forward udp dport { 500, 4500 } drop')
  const server = lab.host('server').address
  const arrived = async (user: number) =>
    (await as(user, 'curl', '-sS', '-o', '/dev/null', '--max-time', '3', `http://${server}/`)).code === 0
  const unstick = ['nft', 'delete', 'table', 'ip', 'stuck']
  t.after(() => lab.commands.run(inNamespace(router, ...unstick), { check: false }))
  const leaked = await lab.leaksWhile(async () => {
    assert.equal((await lab.circuits('close', `${old}`)).code, 0)
    await lab.status<Status>('client', ({ groups }) =>
      groups.some(({ name, circuit }) => name === 'mail' && circuit !== old) ? undefined : 'it has it still',
    )
    const first = sentBy(await lab.status<Status>('client', () => undefined))
    assert.ok(!(await arrived(USER.mail)), 'it has no way')
    await datagrams(USER.mail, server)
    await sleep(SETTLE)
    const second = sentBy(await lab.status<Status>('client', () => undefined))
    for (const name of ['default', 'news', 'web'])
      assert.ok(second.get(name)! - first.get(name)! < 20, `${name} carried what is not its own`)
    assert.ok(await arrived(USER.news), 'others go on')
    assert.ok(await arrived(USER.nobodys), 'the default circuit goes on')
  })
  assert.deepEqual(leaked, [])
  await lab.commands.run(inNamespace(router, ...unstick))
  const { groups } = await lab.status<Status>('client', allOpen)
  assert.notEqual(groups.find(({ name }) => name === 'mail')!.circuit, old)
  assert.deepEqual(await busyAfter(20, () => datagrams(USER.mail, server)), ['mail'])
})

test('a client that is killed leaks nothing of a group, and its successor and the end leave no rule', async (t) => {
  if (missing) return t.skip(missing)
  const server = lab.host('server').address
  const leaked = await lab.leaksWhile(async () => {
    await lab.kill('client')
    await datagrams(USER.mail, server)
    await datagrams(USER.nobodys, WEB)
    lab.start('client')
    await lab.status<Status>('client', allOpen)
  })
  assert.deepEqual(leaked, [])
  assert.deepEqual(await busyAfter(20, () => datagrams(USER.mail, server)), ['mail'])
  assert.equal(await lab.stop('client'), 0)
  assert.deepEqual(await lab.leftovers('client'), [])
})
