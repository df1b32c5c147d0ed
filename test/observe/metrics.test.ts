import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Ip, ip } from '#base/ip'
import { renderMetrics } from '#observe/metrics'
import { trafficOfNode } from '#observe/traffic'

test('a node', () => {
  const text = renderMetrics({
    role: 'node',
    counters: { malformed: 3, 'odd"name\n': 1 },
    leases: { inUse: 2, free: 4091, quarantined: 0 },
    overlay: [{ state: 'up' }, { state: 'up' }, { state: 'connecting' }],
    circuits: 2,
    sas: [
      { packets: 10, bytes: 1000 },
      { packets: 5, bytes: 1 },
    ],
  })
  assert.equal(
    text,
    `# HELP ippriv_events_total What the daemon refused, ignored or counted, by name.
# TYPE ippriv_events_total counter
ippriv_events_total{role="node",event="malformed"} 3
ippriv_events_total{role="node",event="odd\\"name\\n"} 1
# HELP ippriv_leases Private addresses of the own pool, by state.
# TYPE ippriv_leases gauge
ippriv_leases{role="node",state="inUse"} 2
ippriv_leases{role="node",state="free"} 4091
ippriv_leases{role="node",state="quarantined"} 0
# HELP ippriv_circuits Circuits that exist.
# TYPE ippriv_circuits gauge
ippriv_circuits{role="node"} 2
# HELP ippriv_overlay_tunnels Overlay tunnels, by state.
# TYPE ippriv_overlay_tunnels gauge
ippriv_overlay_tunnels{role="node",state="up"} 2
ippriv_overlay_tunnels{role="node",state="connecting"} 1
# HELP ippriv_sas ESP SAs in the data plane.
# TYPE ippriv_sas gauge
ippriv_sas{role="node"} 2
# HELP ippriv_sa_bytes Octets through the SAs that exist now.
# TYPE ippriv_sa_bytes gauge
ippriv_sa_bytes{role="node"} 1001
# HELP ippriv_sa_packets Packets through the SAs that exist now.
# TYPE ippriv_sa_packets gauge
ippriv_sa_packets{role="node"} 15
`,
  )
})

test('what a node carried, by carrier and direction and by nothing else', () => {
  const [self, peer, client, other] = ['198.18.10.1', '198.18.20.1', '198.18.1.1', '10.64.0.5'].map(ip) as [
    Ip,
    Ip,
    Ip,
    Ip,
  ]
  const row = (source: Ip, destination: Ip, packets: number, replayed = 0) => ({
    source,
    destination,
    packets,
    bytes: 100 * packets,
    replayed,
    corrupted: 0,
  })
  const sas = [
    row(self, peer, 1),
    row(peer, self, 2, 7),
    row(client, self, 4),
    row(self, client, 8),
    row(other, self, 16),
  ]
  const { overlay, traffic } = trafficOfNode(sas, [{ address: peer, peer: 'birch' }], self)
  assert.deepEqual([overlay[0]?.traffic.in.packets, overlay[0]?.traffic.out.bytes], [2, 100])
  const text = renderMetrics({ role: 'node', traffic })
  const lines = text.split('\n').filter((line) => !line.startsWith('#'))
  const gauge = (name: string, carrier: string, direction: string) =>
    `ippriv_traffic_${name}{role="node",carrier="${carrier}",direction="${direction}"}`
  assert.deepEqual(lines.slice(0, 8), [
    `${gauge('bytes', 'overlay', 'in')} 200`,
    `${gauge('bytes', 'overlay', 'out')} 100`,
    `${gauge('bytes', 'circuits', 'in')} 2000`,
    `${gauge('bytes', 'circuits', 'out')} 800`,
    `${gauge('packets', 'overlay', 'in')} 2`,
    `${gauge('packets', 'overlay', 'out')} 1`,
    `${gauge('packets', 'circuits', 'in')} 20`,
    `${gauge('packets', 'circuits', 'out')} 8`,
  ])
  assert.equal(
    lines[8],
    'ippriv_traffic_refused{role="node",carrier="overlay",direction="in",reason="replayed"} 7',
  )
  assert.doesNotMatch(text, /198\.18|10\.64|birch/)
})

test('nothing of a client names a circuit or an address', () => {
  const text = renderMetrics({
    role: 'client',
    circuits: [{ id: 1, privateAddresses: ['10.64.0.5'] }],
    consensus: { serial: 7, nodes: 9 },
    counters: {},
  })
  assert.match(text, /ippriv_circuits\{role="client"\} 1\n/)
  assert.match(text, /ippriv_consensus_nodes\{role="client"\} 9\n/)
  assert.doesNotMatch(text, /10\.64/)
})
