import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  ANY_DEVICE,
  catalogue,
  contribution,
  deviation,
  isTrial,
  plan,
  type Trial,
  turningLine,
} from '../../bench/tune/trial.ts'
import { contributions, thresholdTable } from '../../bench/tune.ts'

const settings = catalogue(2)
const setting = (name: string) => settings.find((one) => one.setting.name === name)!.setting
const trial = (name: string, found: string): Trial => {
  const planned = plan(setting(name), found)
  assert.ok(isTrial(planned))
  return planned
}

test('every setting of `ippriv tune` is measured or has a reason not to be', () => {
  const found = '1'
  const reasons = settings
    .map(({ setting }) => plan(setting, found))
    .filter((one) => !isTrial(one))
    .map((one) => ('why' in one ? one.why : ''))
  assert.ok(settings.length > 20)
  assert.ok(
    reasons.every((why) => why !== '' && !why.includes('does not know')),
    reasons.join('; '),
  )
})

test('what is found as wanted is turned away from it, what is not is turned to it', () => {
  const sack = trial('net.ipv4.tcp_sack', '1')
  assert.deepEqual([sack.wanted, sack.without, deviation(sack), sack.where], ['1', '0', '0', 'ends'])
  const offload = trial(`${ANY_DEVICE}/generic-receive-offload`, 'off')
  assert.deepEqual([offload.wanted, offload.without, deviation(offload)], ['on', 'off', 'on'])
  const backlog = trial('net.core.netdev_max_backlog', '300')
  assert.deepEqual([backlog.wanted, backlog.without, backlog.where], ['4096', '300', 'machine'])
  const mtu = trial(`${ANY_DEVICE}/mtu`, '9000')
  assert.deepEqual([mtu.wanted, deviation(mtu)], ['9000', '1400'])
})

test('a knob that is not here is not measured', () => {
  const planned = plan(setting('net.ipv4.tcp_mtu_probing'), undefined)
  assert.deepEqual(planned, { name: 'net.ipv4.tcp_mtu_probing', why: 'this machine has no such knob' })
})

test('a contribution is what the wanted value has over the other, whichever was there', () => {
  const near = (value: number, wanted: number) => assert.ok(Math.abs(value - wanted) < 1e-9, `${value}`)
  near(contribution(trial('net.ipv4.tcp_sack', '1'), 150, 100), 50)
  near(contribution(trial(`${ANY_DEVICE}/generic-receive-offload`, 'off'), 100, 150), 50)
})

test('contributions are within a round, and what arrived nowhere is left out', () => {
  const sack = trial('net.ipv4.tcp_sack', '1')
  const sample = (round: number, state: string, mbps: number) =>
    ({ condition: 'open', round, state, mbps }) as const
  const all = contributions(
    [sack],
    [
      ...[sample(1, 'as found', 90), sample(1, 'as found', 110), sample(1, sack.name, 50)],
      ...[sample(2, 'as found', 40), sample(2, sack.name, 0)],
      ...[sample(1, 'all as wanted', 30), sample(1, 'all without', 20)],
    ],
    'open',
  )
  assert.deepEqual(all.get(sack.name), [100])
  assert.deepEqual(all.get('all as wanted')!.map(Math.round), [50])
})

test('what hashing gives is within a round, and medians are over all of them', () => {
  const sample = (circuits: number, hashed: boolean, mbps: number) =>
    ({ circuits, hashed, installed: 10 * mbps, removed: 20 * mbps, mbps }) as const
  const { rows } = thresholdTable([
    ...[sample(1, true, 90), sample(1, false, 90), sample(9, true, 80), sample(9, false, 40)],
    ...[sample(1, true, 60), sample(1, false, 50), sample(9, true, 30), sample(9, false, 30)],
  ])
  assert.deepEqual(rows, [
    ['1', 'yes', '2', 750, 1500, 75, '10.0', '0.0', '20.0'],
    ['1', 'no', '2', 700, 1400, 70, '', '', ''],
    ['9', 'yes', '2', 550, 1100, 55, '50.0', '0.0', '100.0'],
    ['9', 'no', '2', 350, 700, 35, '', '', ''],
  ])
})

test('lines that turn knobs', () => {
  const line = (name: string, value: string) => turningLine(setting(name).knob, value, 'birch')
  assert.equal(line('net.ipv4.tcp_rmem', '1 2 3'), 'echo 1 2 3 >/proc/sys/net/ipv4/tcp_rmem')
  assert.equal(line(`${ANY_DEVICE}/mtu`, '1400'), 'ip link set birch mtu 1400')
  assert.equal(
    line(`${ANY_DEVICE}/generic-receive-offload`, 'on'),
    'ethtool -K birch generic-receive-offload on',
  )
  assert.equal(line('xfrm/hthresh4', '0 32'), 'ip xfrm policy set hthresh4 0 32')
  assert.equal(line(`${ANY_DEVICE}/rx-0/rps_cpus`, '3'), 'echo 3 >/sys/class/net/birch/queues/rx-0/rps_cpus')
})
