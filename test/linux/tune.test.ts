/** `ippriv tune` on a host of its own: one device with a route through it, in a network namespace. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { correction, processorMask, type Setting, settingsFor, settled } from '#tune/settings'

const PROGRAM = resolve(import.meta.dirname, '../../bin/ippriv')
const skip = process.getuid?.() === 0 ? false : 'needs root: it creates a network namespace'

const setting = (wanted: Setting['wanted']): Setting => ({
  name: 'a.b',
  knob: { kind: 'sysctl', path: 'a/b' },
  wanted,
  why: '',
})

test('corrections: exact values, lower bounds that leave more alone, and advice that is never followed blindly', () => {
  const exact = setting({ kind: 'exactly', value: '4096 131072 6291456' })
  assert.equal(correction(exact, '4096\t131072\t6291456\n'), undefined)
  assert.equal(correction(exact, '4096 87380 6291456'), '4096 131072 6291456')
  const least = setting({ kind: 'at-least', values: [10, 20] })
  assert.equal(correction(least, '15 20'), undefined)
  assert.equal(correction(least, '15 5'), '15 20')
  assert.equal(correction(least, '15 20 7'), undefined)
  assert.equal(correction(setting({ kind: 'advice', value: 'x', ok: () => false }), 'y'), undefined)
})

test('what a setting is once it is as wanted: also where that holds already, or where there is no such knob now', () => {
  const exact = setting({ kind: 'exactly', value: '1' })
  assert.deepEqual(
    ['1', '0', undefined].map((current) => settled(exact, current)),
    ['1', '1', '1'],
  )
  const least = setting({ kind: 'at-least', values: [10, 20] })
  assert.deepEqual(
    ['15\t5', '15 30', undefined].map((current) => settled(least, current)),
    ['15 20', '15 30', '10 20'],
  )
  assert.equal(settled(setting({ kind: 'advice', value: 'x', ok: () => true }), 'x'), undefined)
})

test('masks of processors as the kernel writes them', () => {
  assert.deepEqual([1, 2, 31, 32, 33, 64].map(processorMask), [
    '1',
    '3',
    '7fffffff',
    'ffffffff',
    '1,ffffffff',
    'ffffffff,ffffffff',
  ])
})

test('every setting of both roles has a name of its own and a reason', () => {
  const device = { name: 'eth0', isHardware: true, receiveQueues: ['rx-0'], transmitQueues: ['tx-0', 'tx-1'] }
  for (const role of ['node', 'client'] as const) {
    const settings = settingsFor(role, { processors: 4, devices: [device] })
    assert.equal(new Set(settings.map(({ name }) => name)).size, settings.length)
    for (const { why, name } of settings) assert.ok(why.length > 10, name)
  }
})

test('what arrives is spread where a device with too few queues interrupts processors, and nowhere else', () => {
  const spreads = (isHardware: boolean, queues: number) => {
    const receiveQueues = Array.from({ length: queues }, (_, i) => `rx-${i}`)
    const device = { name: 'eth0', isHardware, receiveQueues, transmitQueues: ['tx-0'] }
    return settingsFor('node', { processors: 4, devices: [device] }).some(({ name }) =>
      name.endsWith('/rps_cpus'),
    )
  }
  assert.deepEqual([spreads(true, 1), spreads(true, 4), spreads(false, 1)], [true, false, false])
})

describe('on a host', { skip }, () => {
  const namespace = `ipptune${process.pid}`
  const folder = mkdtempSync(join(tmpdir(), 'tune-'))
  const note = join(folder, 'note.json')
  const inside = (...argv: string[]) => ['netns', 'exec', namespace, ...argv]
  const ip = (...args: string[]) => execFileSync('ip', args, { encoding: 'utf8' })
  const tune = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync('ip', inside(PROGRAM, 'tune', '--note', note, ...args), {
      encoding: 'utf8',
    })
    return { status, stdout, stderr }
  }
  const json = (...args: string[]) => {
    const { status, stdout, stderr } = tune('--json', ...args)
    assert.equal(status, 0, stderr)
    return JSON.parse(stdout) as { findings: Found[]; changed: string[]; reverted: string[] }
  }
  type Found = { name: string; state: string; current: string; distinguishes?: string }
  const stateOf = (name: string, ...args: string[]) =>
    json(...args).findings.find((found) => found.name === name)?.state
  const ttl = () => ip(...inside('cat', '/proc/sys/net/ipv4/ip_default_ttl')).trim()
  const gro = () => /generic-receive-offload: (\w+)/.exec(ip(...inside('ethtool', '-k', 'up0')))?.[1]

  before(() => {
    ip('netns', 'add', namespace)
    ip(...inside('ip', 'link', 'add', 'up0', 'type', 'veth', 'peer', 'name', 'peer0'))
    for (const device of ['lo', 'up0', 'peer0']) ip(...inside('ip', 'link', 'set', device, 'up'))
    ip(...inside('ip', 'addr', 'add', '198.18.1.1/24', 'dev', 'up0'))
  })
  after(() => {
    ip('netns', 'del', namespace)
    rmSync(folder, { recursive: true })
  })

  test('it looks, changes nothing, and sees only devices with a route', () => {
    const { findings } = json('--role', 'client')
    assert.ok(findings.some(({ name }) => name === 'up0/mtu'))
    // A veth's sender does the work of receiving.
    assert.ok(!json('--role', 'node').findings.some(({ name }) => name.endsWith('/rps_cpus')))
    assert.ok(!findings.some(({ name }) => name.startsWith('peer0/')))
    assert.equal(findings.find(({ name }) => name === 'net.ipv4.ip_default_ttl')?.state, 'good')
  })

  test('what sets a client apart is changed, said, and put back', () => {
    ip(...inside('sysctl', '-qw', 'net.ipv4.ip_default_ttl=128'))
    assert.match(
      tune('--role', 'client').stdout,
      /can be told from others:\n {2}net\.ipv4\.ip_default_ttl: every/,
    )
    assert.equal(ttl(), '128')
    const applied = tune('--role', 'client', '--apply').stdout
    assert.match(applied, /changed +net\.ipv4\.ip_default_ttl +128 -> 64 /)
    // It cannot any more, and so is not said to be.
    assert.doesNotMatch(applied, /ip_default_ttl: every/)
    assert.equal(ttl(), '64')
    assert.deepEqual(json('--role', 'client', '--apply').changed, [])
    assert.equal(stateOf('net.ipv4.ip_default_ttl', '--role', 'client'), 'good')
    assert.ok(json('--revert').reverted.includes('net.ipv4.ip_default_ttl'))
    assert.equal(ttl(), '128')
    assert.deepEqual(json('--revert').reverted, [])
  })

  test('features of devices, twice applied, go back to what was before the first time', () => {
    ip(...inside('ethtool', '-K', 'up0', 'gro', 'off'))
    json('--apply', '--device', 'up0')
    assert.equal(gro(), 'on')
    ip(...inside('ethtool', '-K', 'up0', 'gro', 'off'))
    json('--apply', '--device', 'up0')
    json('--revert')
    assert.equal(gro(), 'off')
  })

  test('a file for sysctl.d, with the reasons, that sysctl(8) takes', () => {
    const file = join(folder, '90-ippriv.conf')
    ip(...inside('sysctl', '-qw', 'net.ipv4.tcp_sack=0'))
    json('--role', 'client', '--sysctl-d', file)
    assert.match(readFileSync(file, 'utf8'), /^# without selective .*\nnet\.ipv4\.tcp_sack = 1$/m)
    // -e: what belongs to the whole machine is not in every kernel's namespaces.
    ip(...inside('sysctl', '-q', '-e', '-p', file))
    assert.equal(stateOf('net.ipv4.tcp_sack', '--role', 'client'), 'good')
  })

  test('the file has what an earlier run applied or wrote, so that a boot loses nothing', () => {
    const file = join(folder, '91-ippriv.conf')
    const names = () => [...readFileSync(file, 'utf8').matchAll(/^-?(net\.\S+) = /gm)].map(([, name]) => name)
    ip(...inside('sysctl', '-qw', 'net.ipv4.tcp_sack=0'))
    json('--role', 'client', '--apply', '--sysctl-d', file)
    const first = names()
    json('--role', 'client', '--sysctl-d', file)
    assert.deepEqual(names(), first)
    const sysctls = settingsFor('client', { processors: 1, devices: [] })
    assert.deepEqual(
      first,
      sysctls.filter(({ wanted }) => wanted.kind !== 'advice').map(({ name }) => name),
    )
    json('--role', 'node', '--sysctl-d', file)
    assert.match(readFileSync(file, 'utf8'), /^net\.ipv4\.tcp_mtu_probing = 1$/m)
    json('--revert')
  })

  test('what refuses to be put back stays noted, and what stands before it is put back all the same', () => {
    const entry = (name: string, value: string) => ({
      ...{ name, value },
      knob: { kind: 'sysctl', path: name.replaceAll('.', '/') },
    })
    const refusing = entry('net.ipv4.tcp_sack', 'never')
    const gone = { name: 'gone0/mtu', knob: { kind: 'mtu', device: 'gone0' }, value: '1400' }
    writeFileSync(note, JSON.stringify([entry('net.ipv4.ip_default_ttl', '77'), refusing, gone]))
    const { status, stdout, stderr } = tune('--revert')
    assert.equal(status, 1)
    assert.equal(stdout, 'put back: net.ipv4.ip_default_ttl\n')
    assert.match(stderr, /net\.ipv4\.tcp_sack: cannot write never/)
    assert.equal(ttl(), '77')
    assert.deepEqual(JSON.parse(readFileSync(note, 'utf8')), [refusing])
    writeFileSync(note, JSON.stringify([{ ...refusing, value: '1' }]))
    assert.deepEqual(json('--revert').reverted, ['net.ipv4.tcp_sack'])
    assert.ok(!existsSync(note))
    ip(...inside('sysctl', '-qw', 'net.ipv4.ip_default_ttl=64'))
  })

  test('from which prefixes on policies are hashed, in this network namespace and in no other', () => {
    const thresholds = (...args: string[]) =>
      /IPv4 thresholds: local (\d+) remote (\d+)/
        .exec(ip(...args, '-s', '-s', 'xfrm', 'policy', 'count'))
        ?.slice(1)
    const hashing = () => json('--role', 'node').findings.find(({ name }) => name === 'xfrm/hthresh4')
    if (hashing()?.state === 'absent')
      return assert.match(
        tune('--role', 'node').stderr,
        /no XFRM.*: the hashing of policies is not looked at/,
      )
    const elsewhere = thresholds()
    assert.deepEqual([hashing()?.state, hashing()?.current], ['change', '32 32'])
    assert.ok(json('--role', 'node', '--apply').changed.includes('xfrm/hthresh4'))
    assert.deepEqual(thresholds('-n', namespace), ['0', '32'])
    assert.deepEqual(thresholds(), elsewhere)
    assert.equal(hashing()?.state, 'good')
    assert.ok(json('--revert').reverted.includes('xfrm/hthresh4'))
    assert.deepEqual(thresholds('-n', namespace), ['32', '32'])
  })

  test('wrong input: a device that is not there, a damaged note', () => {
    for (const name of ['nope0', '../../etc']) {
      const { status, stderr } = tune('--device', name)
      assert.equal(status, 2)
      assert.match(stderr, /IPP_CONFIG_INVALID/)
    }
    execFileSync('sh', ['-c', `echo '{' >${note}`])
    const { status, stderr } = tune('--revert')
    assert.equal(status, 1)
    assert.match(stderr, /note\.json/)
    rmSync(note)
  })
})
