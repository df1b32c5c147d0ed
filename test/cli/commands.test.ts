import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import { IpprivError } from '#base/errors'
import { choosePlane, diagnose, type Finding, report } from '#cli/doctor'
import { bytesText, columns, EXIT, fail, paint } from '#cli/output'

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const ippriv = (...args: readonly string[]) =>
  spawnSync(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...args], {
    encoding: 'utf8',
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined },
  })

test('keygen node: files, printed keys, no overwriting', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ippriv-cli-'))
  try {
    const keys = join(directory, 'keys')
    const made = ippriv('keygen', 'node', '--dir', keys, '--json')
    assert.equal(made.status, EXIT.ok, made.stderr)
    const shown = JSON.parse(made.stdout) as Record<string, string>
    assert.deepEqual(Object.keys(shown), ['nodeId', 'identityKey', 'ikeKey', 'ecdsaKey'])
    for (const [name, value] of Object.entries(shown))
      assert.match(value, name === 'ecdsaKey' ? /^3059[0-9a-f]{178}$/ : /^[0-9a-f]{64}$/)
    assert.equal((await stat(join(keys, 'identity.pem'))).mode & 0o777, 0o600)
    const again = ippriv('keygen', 'node', '--dir', keys)
    assert.equal(again.status, EXIT.usage)
    assert.match(
      again.stderr,
      /^ippriv: cannot read a key file: .*identity\.pem exists already.* \[IPP_KEY_UNREADABLE\]\n$/,
    )
    const text = ippriv('keygen', 'directory', '--dir', directory)
    assert.match(text.stdout, /^publicKey {2}[0-9a-f]{64}\n$/)
    assert.match(await readFile(join(directory, 'authority.pem'), 'utf8'), /PRIVATE KEY/)
    const { key } = JSON.parse(ippriv('keygen', 'token', '--dir', directory, '--json').stdout)
    assert.notEqual(`${key}\n`, await readFile(join(directory, 'operator.token'), 'utf8'))
  } finally {
    await rm(directory, { recursive: true })
  }
})

test('who reads the output may have enough', () => {
  const line = [process.execPath, '--disable-warning=ExperimentalWarning', MAIN, '--help']
  const piped = spawnSync('bash', ['-o', 'pipefail', '-c', '"$@" | true', 'bash', ...line], {
    encoding: 'utf8',
  })
  assert.deepEqual([piped.status, piped.stderr], [EXIT.unread, ''])
})

test('usage: help, unknown commands, missing options', () => {
  const help = ippriv('--help')
  assert.equal(help.status, EXIT.ok)
  for (const command of [
    'keygen',
    'directory',
    'node',
    'client',
    'status',
    'circuits',
    'overlay',
    'doctor',
    'demo',
    'replay',
  ])
    assert.match(help.stdout, new RegExp(`^ {2}${command}\\b`, 'm'))
  for (const args of [['nonsense'], ['keygen', 'node'], ['keygen', 'node', '--directory', 'x']]) {
    const wrong = ippriv(...args)
    assert.equal(wrong.status, EXIT.usage, args.join(' '))
    assert.match(wrong.stderr, /^error: /)
    assert.equal(wrong.stdout, '')
  }
})

test('a configuration that cannot be used is a usage error with its place', () => {
  const absent = ippriv('node', '--config', '/nonexistent/node.yaml', '--check')
  assert.equal(absent.status, EXIT.usage)
  assert.match(absent.stderr, /\/nonexistent\/node\.yaml: ENOENT.*\[IPP_CONFIG_UNREADABLE\]/)
})

test('doctor says which plane would run and why', async () => {
  const diagnosis = await diagnose()
  const names = diagnosis.findings.map((finding) => finding.name)
  for (const name of [
    'kernel',
    'Node.js',
    'CAP_NET_ADMIN',
    'TUN',
    'ESP in the kernel',
    'noble aes-256-gcm-16',
  ])
    assert.ok(names.includes(name), name)
  for (const finding of diagnosis.findings)
    if (finding.state === 'ok') assert.equal(finding.todo, undefined, finding.name)
  const doctor = ippriv('doctor', '--json')
  const told = JSON.parse(doctor.stdout) as { plane: string | null }
  assert.equal(told.plane, diagnosis.plane)
  assert.equal(doctor.status, told.plane === null ? EXIT.failed : EXIT.ok)
})

test('the plane follows from the findings', () => {
  const host = (...ok: readonly string[]): ReadonlyMap<string, Finding> =>
    new Map(
      ['CAP_NET_ADMIN', 'CAP_NET_RAW', 'packet filter', 'ESP in the kernel', 'TUN'].map((name) => [
        name,
        { name, state: ok.includes(name) ? 'ok' : 'missing', detail: '' },
      ]),
    )
  const root = ['CAP_NET_ADMIN', 'CAP_NET_RAW', 'packet filter']
  assert.equal(choosePlane(host(...root, 'ESP in the kernel', 'TUN')).plane, 'xfrm')
  assert.equal(choosePlane(host(...root, 'TUN')).plane, 'userspace')
  assert.deepEqual(choosePlane(host(...root)), { plane: null, why: 'the kernel has neither ESP nor TUN' })
  assert.match(choosePlane(host('CAP_NET_ADMIN', 'CAP_NET_RAW', 'TUN')).why, /without packet filter$/)
  assert.match(
    choosePlane(host('TUN', 'ESP in the kernel')).why,
    /without CAP_NET_ADMIN, CAP_NET_RAW, packet filter$/,
  )
  const lines = report({
    findings: [{ name: 'TUN', state: 'missing', detail: 'no driver', todo: 'modprobe tun' }],
    plane: null,
    why: 'because',
  })
  assert.match(
    lines.join('\n'),
    /TUN {2}.*missing.* {2}no driver\n\nplane: .*none.* \(because\)\n\nWhat to do:\n {2}TUN: modprobe tun$/,
  )
})

test('columns line up, colours do not count', () => {
  const red = '\u001b[31mdown\u001b[39m'
  assert.deepEqual(
    columns([
      ['alder', 'up', '1'],
      ['b', red, '22'],
    ]),
    ['alder  up    1', `b      ${red}  22`],
  )
  assert.deepEqual(columns([['a', '', '']], ['name', 'x', 'y']).map(stripVTControlCharacters), [
    'name  x  y',
    'a',
  ])
  assert.equal(paint('red', 'x', new PassThrough() as unknown as NodeJS.WriteStream), 'x')
})

test('octets for people', () => {
  assert.deepEqual([0, 1023, 1024, 1536, 3 * 1024 ** 3].map(bytesText), [
    '0 B',
    '1023 B',
    '1.0 KiB',
    '1.5 KiB',
    '3.0 GiB',
  ])
})

test('exit codes: 2 for configuration and keys, 1 for everything else', () => {
  const before = process.exitCode
  const write = process.stderr.write
  let said = ''
  process.stderr.write = ((text: string) => {
    said += text
    return true
  }) as typeof write
  try {
    for (const [error, expected] of [
      [new IpprivError('IPP_CONFIG_INVALID', 'x'), EXIT.usage],
      [new IpprivError('IPP_KEY_INVALID', 'x'), EXIT.usage],
      [new IpprivError('IPP_PLANE_DEAD', 'x'), EXIT.failed],
      [new TypeError('defect'), EXIT.failed],
    ] as const) {
      fail(error)
      assert.equal(process.exitCode, expected)
    }
  } finally {
    process.stderr.write = write
    process.exitCode = before
  }
  assert.equal(said.trim().split('\n').length, 4, 'one line each')
})

test('replay: a generated log, as a table, as JSON, and as a log that can be replayed', async () => {
  const generated = ['replay', '--generate', 'wireless', '--scale', '0.002', '--seed', '3']
  const table = ippriv(...generated)
  assert.equal(table.status, EXIT.ok)
  assert.match(table.stdout, /^299 connections of 23 users$/m)
  assert.match(table.stdout, /^established {2}2 h .* full < 20 %$/m)
  const json = JSON.parse(ippriv(...generated, '--json').stdout)
  assert.equal(json.outcomes.length, 17)
  const directory = await mkdtemp(join(tmpdir(), 'ippriv-replay-'))
  try {
    const file = join(directory, 'vpn.csv')
    await writeFile(file, ippriv(...generated, '--csv').stdout)
    assert.deepEqual(JSON.parse(ippriv('replay', file, '--json').stdout), json)
    await writeFile(file, 'user,start,end,bytes\nu,1,x,3\n')
    const bad = ippriv('replay', file)
    assert.equal(bad.status, EXIT.usage)
    assert.match(bad.stderr, /vpn\.csv:2:5: expected a time.*\[IPP_LOG_INVALID\]/)
    assert.match(ippriv('replay', join(directory, 'none')).stderr, /\[IPP_LOG_UNREADABLE\]/)
  } finally {
    await rm(directory, { recursive: true })
  }
  for (const args of [
    [],
    ['x', '--generate', 'remote'],
    ['--generate', 'dial-up'],
    ['--generate', 'remote', '--scale', '7'],
  ])
    assert.equal(ippriv('replay', ...args).status, EXIT.usage)
})
