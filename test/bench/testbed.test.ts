import assert from 'node:assert/strict'
import { test } from 'node:test'
import { stringify } from 'yaml'
import { readTestbed } from '../../bench/testbed/hosts.ts'
import { testbedReport } from '../../bench/testbed.ts'

const HOSTS = [
  { role: 'client', ssh: 'root@lab1', address: '192.0.2.101' },
  { role: 'node', name: 'alder', ssh: 'root@lab2', address: '192.0.2.2' },
  { role: 'node', name: 'birch', ssh: 'lab3', address: '192.0.2.3' },
  { role: 'server', ssh: 'root@lab4', address: '192.0.2.4' },
]
const FILE = { ssh: ['-p', 2222], planes: ['userspace', 'xfrm'], hosts: HOSTS }
const read = (change: object) => readTestbed(stringify({ ...FILE, ...change }))

test('a hosts file: roles, the order of the path, and what is said when nothing is', () => {
  const { client, nodes, server, folder, install, ssh, planes } = read({})
  assert.deepEqual(client, { name: 'client', destination: 'root@lab1', address: '192.0.2.101' })
  assert.deepEqual(
    nodes.map(({ name }) => name),
    ['alder', 'birch'],
  )
  assert.equal(server.destination, 'root@lab4')
  assert.deepEqual(
    [folder, install, ssh, planes],
    ['/opt/ippriv-testbed', true, ['-p', '2222'], ['userspace', 'xfrm']],
  )
  assert.deepEqual(readTestbed(stringify({ hosts: HOSTS })).planes, ['xfrm'])
})

test('what is wrong in a hosts file is named, with its place', () => {
  const host = (i: number, change: object) => ({
    hosts: HOSTS.map((one, k) => (k === i ? { ...one, ...change } : one)),
  })
  const cases: readonly (readonly [object, RegExp])[] = [
    [{ hosts: HOSTS.slice(1) }, /one with role client, not 0/],
    [{ hosts: [HOSTS[0], HOSTS[3]] }, /1 to 5 with role node/],
    [{ planes: ['kernel'] }, /kernel is none of xfrm, userspace/],
    [{ colour: 'red' }, /no key colour/],
    [{ folder: '/opt/x; rm' }, /folder/],
    [host(1, { address: '10.64.3.1' }), /hosts\[1\]\.address: .* nodes lend/],
    [host(1, { address: '192.0.2.300' }), /hosts\[1\]\.address: .* no IPv4/],
    [host(2, { address: '192.0.2.2' }), /192\.0\.2\.2 is there twice/],
    [host(2, { name: 'alder' }), /alder is there twice/],
    [host(2, { name: 'a b' }), /hosts\[2\]\.name/],
    [host(2, { name: undefined }), /hosts\[2\]\.name: missing/],
    [host(0, { ssh: '-oProxyCommand=x' }), /hosts\[0\]\.ssh/],
    [host(0, { ssh: 'root@lab1; reboot' }), /hosts\[0\]\.ssh/],
  ]
  for (const [change, message] of cases) assert.throws(() => read(change), message)
})

test('the report has a row for each load, and the processor time of each machine', () => {
  const { tables } = testbedReport(
    1,
    ['client', 'alder', 'server'],
    [
      { side: 'direct', load: '1 down', round: 1, mbps: 900, cost: { client: 1, alder: 0, server: 2 } },
      { side: 'xfrm', load: '1 down', round: 1, mbps: 500, cost: { client: 3, alder: 4, server: 2 } },
      { side: 'xfrm', load: 'idle', round: 1, ms: 0.5 },
    ],
  )
  assert.deepEqual(tables[0]!.rows[0], ['1 down', 900, 500])
  assert.deepEqual(tables.at(-1)!.rows, [
    ['direct', 1, 0, 2],
    ['xfrm', 3, 4, 2],
  ])
})
