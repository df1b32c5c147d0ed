/**
 * What daemons and commands say when something is wrong at their start: each time one line (what, where, what to do,
 * code), an exit code, and nothing left behind on the host.
 */
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { ErrorCode } from '#base/errors'
import { type Background, until } from '#demo/command'
import { DIRECTORY_PORT, PROGRAM, ready } from '#demo/daemons'
import { inNamespace } from '#demo/topology'
import { assertRefused, Lab, unavailable } from './lab.ts'

const missing = unavailable()
const lab = new Lab(['alder'])
const ROLE_OF = { alder: 'node', client: 'client', directory: 'directory' } as const
type Name = keyof typeof ROLE_OF
const NAMES = Object.keys(ROLE_OF) as Name[]

before(async () => {
  if (missing) return
  await lab.raise(1)
  // So that what is on stderr is the one line of the end.
  for (const name of NAMES) lab.configure(name, { 'log.level': 'error', debug: undefined })
})

after(() => lab.down())

/** Runs a daemon that must not come up. */
const start = (name: Name, config = lab.configFile(name)) =>
  lab.ippriv(name, ROLE_OF[name], '--config', config)

/** A configuration file of another content. */
function variant(name: string, text: string): string {
  const file = join(lab.out, `${name}.yaml`)
  writeFileSync(file, text)
  return file
}

/** Starts `name` with changes to its configuration, expects the error, and that the host is as it was. */
async function refused(
  name: Name,
  changes: Readonly<Record<string, unknown>>,
  expected: { readonly code: ErrorCode; readonly exit: 1 | 2; readonly where: RegExp },
): Promise<void> {
  assertRefused(await start(name, lab.variant(name, 'bad', changes)), expected)
  assert.deepEqual(await lab.leftovers(name), [], 'nothing is left')
}

/** For each, all at the same time; the first that fails, once all have ended. */
async function atOnce<T>(
  items: readonly T[],
  each: (item: T, index: number) => Promise<void>,
): Promise<void> {
  for (const outcome of await Promise.allSettled(items.map(each)))
    if (outcome.status === 'rejected') throw outcome.reason
}

/** A program that occupies something in a namespace until `stop`. */
async function occupant(name: Name, script: string): Promise<Background> {
  const log = join(lab.out, `occupant-${name}.log`)
  rmSync(log, { force: true })
  const argv = inNamespace(lab.host(name).namespace, process.execPath, '-e', script)
  const program = lab.commands.start(argv, log)
  await until('the occupant', 10_000, () => readFileSync(log, 'utf8').includes('ready') || undefined)
  return program
}

test('configuration: absent, no YAML, unknown key, wrong value: each with its place', async (t) => {
  if (missing) return t.skip(missing)
  const bad = (text: string, code: ErrorCode, where: RegExp, name: Name = 'alder') => ({
    text,
    code,
    where,
    name,
  })
  const absent = join(lab.out, 'absent.yaml')
  const unreadable = { code: 'IPP_CONFIG_UNREADABLE', exit: 2, where: /absent\.yaml: ENOENT/ } as const
  await atOnce(NAMES, async (name) => assertRefused(await start(name, absent), unreadable))
  const cases = [
    bad('name: [alder\nstate: x\n', 'IPP_CONFIG_SYNTAX', /bad\d\.yaml:\d+:\d+: \S/),
    bad(
      'listen: { address: 198.18.50.1, port: 9030 }\nstate: x\nportt: 9\n',
      'IPP_CONFIG_INVALID',
      /bad\d\.yaml:3:1: .*portt/,
      'directory',
    ),
    bad(
      'state: x\ndirectory:\n  url: http://198.18.50.1:9030\n  key: zz\n',
      'IPP_CONFIG_INVALID',
      /bad\d\.yaml:4:8: .*key.*expected .*64/,
      'client',
    ),
    bad(
      `state: x\ndirectory: { url: "http://198.18.50.1:9030", key: "${'0'.repeat(64)}" }\ncircuit:\n  hops: 9\n`,
      'IPP_CONFIG_INVALID',
      /bad\d\.yaml:4:9: .*hops.*expected an integer 1\.\.5, found 9/,
      'client',
    ),
    bad('', 'IPP_CONFIG_INVALID', /bad\d\.yaml:1:1/),
  ]
  await atOnce(cases, async ({ text, code, where, name }, index) => {
    const file = variant(`bad${index}`, text)
    assertRefused(await start(name, file), { code, exit: 2, where })
  })
})

test('key file: absent, readable by others, of another kind', async (t) => {
  if (missing) return t.skip(missing)
  const file = join(lab.keysOf('alder'), 'ike.pem')
  const authority = join(lab.keysOf('directory'), 'authority.pem')
  renameSync(file, `${file}.away`)
  try {
    await refused('alder', {}, { code: 'IPP_KEY_UNREADABLE', exit: 2, where: /keys\/ike\.pem: ENOENT/ })
    writeFileSync(file, 'not a key\n', { mode: 0o600 })
    await refused('alder', {}, { code: 'IPP_KEY_INVALID', exit: 2, where: /keys\/ike\.pem: / })
  } finally {
    renameSync(`${file}.away`, file)
  }
  chmodSync(file, 0o644)
  chmodSync(authority, 0o640)
  try {
    const mode = (name: string, octal: string) => ({
      code: 'IPP_KEY_UNREADABLE' as const,
      exit: 2 as const,
      where: new RegExp(`keys/${name}: mode ${octal} lets others read it; it must be 0600`),
    })
    await Promise.all([
      refused('alder', {}, mode('ike\\.pem', '0644')),
      refused('directory', {}, mode('authority\\.pem', '0640')),
    ])
  } finally {
    chmodSync(file, 0o600)
    chmodSync(authority, 0o600)
  }
})

test('missing privilege: node and client say so and change nothing', async (t) => {
  if (missing) return t.skip(missing)
  const without = [
    'setpriv',
    '--bounding-set=-all',
    '--inh-caps=-all',
    '--ambient-caps=-all',
    '--no-new-privs',
  ]
  const where = /CAP_NET_ADMIN, CAP_NET_RAW/
  await atOnce(['alder', 'client'] as const, async (name) => {
    const command = [PROGRAM, ROLE_OF[name], '--config', lab.configFile(name)]
    const result = await lab.run(name, ...without, ...command)
    assertRefused(result, { code: 'IPP_HOST_PRIVILEGE', exit: 1, where })
    assert.deepEqual(await lab.leftovers(name), [])
  })
})

test('one capability of the two missing: named as a privilege too', async (t) => {
  if (missing) return t.skip(missing)
  await atOnce(['net_raw', 'net_admin'], async (capability) => {
    const command = [PROGRAM, 'node', '--config', lab.configFile('alder')]
    const result = await lab.run('alder', 'setpriv', `--bounding-set=-${capability}`, ...command)
    const where = new RegExp(`^CAP_${capability} $`, 'i')
    assertRefused(result, { code: 'IPP_HOST_PRIVILEGE', exit: 1, where })
  })
  assert.deepEqual(await lab.leftovers('alder'), [])
})

test('ports in use: UDP 500 of node and client, TCP of the directory', async (t) => {
  if (missing) return t.skip(missing)
  await atOnce(NAMES, async (name) => {
    const { address } = lab.host(name)
    const ready = `() => console.log('ready')`
    const [script, where] =
      name === 'directory'
        ? [
            `require('net').createServer().listen(${DIRECTORY_PORT}, '${address}', ${ready})`,
            `${address}:${DIRECTORY_PORT} \\(TCP\\)`,
          ]
        : [
            `require('dgram').createSocket('udp4').bind(500, '${address}', ${ready})`,
            `UDP ${address} port 500`,
          ]
    const other = await occupant(name, script)
    try {
      assertRefused(await start(name), { code: 'IPP_HOST_PORT_IN_USE', exit: 1, where: new RegExp(where) })
    } finally {
      await other.stop(1000)
    }
    assert.deepEqual(await lab.leftovers(name), [])
  })
})

test('an address that is not of this host', async (t) => {
  if (missing) return t.skip(missing)
  const expected = { code: 'IPP_HOST_ADDRESS', exit: 1, where: /198\.18\.99\.9/ } as const
  await atOnce(NAMES, (name) =>
    refused(name, { [name === 'directory' ? 'listen.address' : 'address']: '198.18.99.9' }, expected),
  )
})

test('a client without a route to the directory', async (t) => {
  if (missing) return t.skip(missing)
  const { gateway } = lab.host('client')
  await lab.run('client', 'ip', 'route', 'del', 'default')
  try {
    assertRefused(await start('client'), { code: 'IPP_HOST_ROUTE', exit: 1, where: /198\.18\.50\.1/ })
  } finally {
    await lab.run('client', 'ip', 'route', 'add', 'default', 'via', gateway)
  }
  assert.deepEqual(await lab.leftovers('client'), [])
})

test('a state directory that cannot be used', async (t) => {
  if (missing) return t.skip(missing)
  const file = join(lab.out, 'plain-file')
  writeFileSync(file, '')
  await atOnce(NAMES, async (name) => {
    const keys = name === 'client' ? undefined : lab.keysOf(name)
    const below = { code: 'IPP_STATE_UNUSABLE', exit: 1, where: /plain-file/ } as const
    await refused(name, { state: join(file, 'state'), keys }, below)
    // Root may write anywhere but where the file system itself refuses.
    const readOnly = { code: 'IPP_STATE_UNUSABLE', exit: 1, where: /\/sys\/kernel\// } as const
    await refused(name, { state: '/sys/kernel', keys }, readOnly)
  })
})

test('the device name is taken by a device of somebody else, which stays', async (t) => {
  if (missing) return t.skip(missing)
  await lab.run('alder', 'ip', 'link', 'add', 'ippriv0', 'type', 'veth', 'peer', 'name', 'other0')
  try {
    assertRefused(await start('alder'), { code: 'IPP_PLANE_UNAVAILABLE', exit: 1, where: /ippriv0/ })
    assert.equal((await lab.run('alder', 'ip', 'link', 'show', 'ippriv0')).code, 0)
  } finally {
    await lab.run('alder', 'ip', 'link', 'del', 'ippriv0')
  }
  assert.deepEqual(await lab.leftovers('alder'), [])
})

test('a plane this kernel cannot do', async (t) => {
  if (missing) return t.skip(missing)
  const doctor = await lab.ippriv('alder', 'doctor', '--json')
  if ((JSON.parse(doctor.stdout) as { plane: string }).plane === 'xfrm')
    return t.skip('this kernel has ESP: both planes run')
  await refused('alder', { plane: 'xfrm' }, { code: 'IPP_PLANE_UNAVAILABLE', exit: 1, where: /xfrm: \S/ })
})

test('commands to a socket that nobody serves', async (t) => {
  if (missing) return t.skip(missing)
  const socket = join(lab.out, 'nobody.sock')
  const expected = { code: 'IPP_CONTROL_UNREACHABLE', exit: 1, where: /nobody\.sock: ENOENT/ } as const
  assertRefused(await lab.ippriv('client', 'status', '--socket', socket), expected)
  assertRefused(await lab.ippriv('client', 'circuits', '--socket', socket, '--json'), expected)
})

test('a second daemon: its start fails and does not touch the first', async (t) => {
  if (missing) return t.skip(missing)
  const running = NAMES.map((name) => lab.start(name))
  await Promise.all(running.map((daemon) => ready(daemon, 30_000, () => undefined)))
  await lab.clientReady()
  const held = await Promise.all(NAMES.map((name) => lab.leftovers(name)))

  const other = join(lab.out, 'second')
  mkdirSync(other)
  await atOnce(NAMES, async (name) => {
    const where = new RegExp(`${name}\\.sock`)
    assertRefused(await start(name), { code: 'IPP_CONTROL_BUSY', exit: 1, where })
    if (name === 'directory') return
    // Another socket and state: what they share is the network namespace.
    const apart = { control: join(other, `${name}.sock`), state: join(other, name) }
    const inUse = new RegExp(`UDP ${lab.host(name).address} port 500`)
    const second = await start(name, lab.variant(name, 'second', apart))
    assertRefused(second, { code: 'IPP_HOST_PORT_IN_USE', exit: 1, where: inUse })
  })
  const locked = lab.variant('directory', 'second', {
    control: join(other, 'd.sock'),
    'listen.port': DIRECTORY_PORT + 1,
  })
  assertRefused(await start('directory', locked), {
    code: 'IPP_STATE_UNUSABLE',
    exit: 1,
    where: /directory\.level: another process uses it/,
  })

  assert.deepEqual(
    await Promise.all(NAMES.map((name) => lab.leftovers(name))),
    held,
    'the first ones hold what they held',
  )
  for (const { process } of running) assert.ok(process.running)
  assert.deepEqual(await Promise.all(NAMES.map((name) => lab.stop(name))), [0, 0, 0])
  await atOnce(NAMES, async (name) => assert.deepEqual(await lab.leftovers(name), []))
})
