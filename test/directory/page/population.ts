/** A made-up network as the page sees it: the same one every time, with names, speeds and families as in life. */
import { uint32ToIp } from '#base/ip'
import { type UnixTime, unixTime } from '#base/time'
import type { Alarm } from '#directory/alarms'
import { nodeIdOf } from '#directory/descriptor'
import type { Consensus, ConsensusNode, NodeFlag, NodeRole } from '#directory/documents'
import type { HistoryPoint } from '#directory/history'
import type { Outlook } from '#directory/page/outlook'
import { DEFAULT_EXIT_POLICY } from '#nat/exit-policy'
import { crypto, PERIOD, SPACE, START } from '../network.ts'

export interface Made {
  readonly nodes?: number
  readonly alarms?: readonly Alarm[]
  /** Which of the five did not sign. */
  readonly unsigned?: readonly number[]
  readonly now?: number
}

/** Twenty minutes into a period. */
export const NOW = START + 1200

export function outlookOf({ nodes = 1000, alarms = [], unsigned = [], now = NOW }: Made = {}): Outlook {
  const random = dice(nodes)
  const families = Array.from({ length: 14 }, (_, i) => ({ key: digest(`family ${i}`), proof: digest('') }))
  const places = new Set<number>()
  const listed = Array.from({ length: nodes }, (_, i): ConsensusNode => {
    const identityKey = digest(`identity ${i}`)
    const roles: NodeRole[] = ['middle']
    if (random() < 0.62) roles.unshift('entry')
    if (random() < 0.24) roles.push('exit')
    // A few are very fast and most are not.
    const megabits = Math.min(9500, 18 * Math.exp(1.7 * gauss(random)))
    const family = random() < 0.09 ? families[Math.floor(random() * families.length)] : undefined
    const address = placeOf(random, places)
    const measured = random() < 0.97
    return {
      nodeId: nodeIdOf(identityKey, crypto),
      identityKey,
      ikeKey: digest(`ike ${i}`),
      name: `${WORDS[Math.floor(random() * WORDS.length)]}-${i}`,
      address: uint32ToIp(address),
      port: 500,
      roles,
      exitPolicy: DEFAULT_EXIT_POLICY,
      published: unixTime(START - Math.floor(random() * 3600)),
      software: random() < 0.8 ? 'ippriv 0.1.0' : 'ippriv 0.0.9',
      pool: { address: uint32ToIp((0x0a400000 + i * 4096) >>> 0), length: 20 },
      ...(family === undefined ? {} : { family }),
      ...(measured ? { bandwidth: Math.round(megabits * 1000) } : {}),
      flags: flagsOf(roles, megabits, random),
    }
  }).sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1))
  const consensus: Consensus = {
    validAfter: START,
    freshUntil: (START + PERIOD) as UnixTime,
    validUntil: (START + 3 * PERIOD) as UnixTime,
    serial: START / PERIOD,
    poolSpace: SPACE,
    nodes: listed,
  }
  return {
    now: unixTime(now),
    consensus,
    size: { plain: nodes * 1050, packed: nodes * 262 },
    authorities: ['ash', 'beech', 'cedar', 'dogwood', 'elm'].map((name, i) => ({
      name,
      key: Buffer.from(digest(name)).toString('hex'),
      signed: !unsigned.includes(i),
      voted: !unsigned.includes(i),
      self: i === 0,
    })),
    threshold: 3,
    alarms,
    history: historyOf(nodes, random),
    courseOf: (id) => courseOf(listed.find(({ nodeId }) => nodeId === id)?.bandwidth),
  }
}

const digest = (text: string): Uint8Array => crypto.hash('sha256', new TextEncoder().encode(text))

function flagsOf(roles: readonly NodeRole[], megabits: number, random: () => number): NodeFlag[] {
  const flags: NodeFlag[] = ['running', 'valid']
  if (megabits > 12) flags.push('fast')
  if (random() < 0.7) flags.push('stable')
  if (roles.includes('exit')) flags.push('exit')
  if (roles.includes('entry') && megabits > 18 && flags.includes('stable')) flags.push('guard')
  return flags.sort()
}

/** Crowded in the networks of large hosters, as nodes are. */
function placeOf(random: () => number, places: Set<number>): number {
  for (;;) {
    const first = HOSTERS[Math.floor(random() ** 1.6 * HOSTERS.length)]!
    const place = ((first << 24) | Math.floor(random() * 0x1000000)) >>> 0
    if (places.has(place >>> 8)) continue
    places.add(place >>> 8)
    return place
  }
}

function historyOf(nodes: number, random: () => number): HistoryPoint[] {
  const points: HistoryPoint[] = []
  let level = 0.86
  for (let i = 720; i >= 0; i--) {
    level = Math.min(1, level + 0.0002 + (random() - 0.5) * 0.006)
    const day = 1 + 0.05 * Math.sin(((START / 3600 - i) / 24) * 2 * Math.PI)
    points.push({
      at: unixTime(START - i * PERIOD),
      nodes: i === 0 ? nodes : Math.round(nodes * level),
      exits: Math.round(nodes * level * 0.24),
      bandwidth: nodes * 71e6 * level * day,
      signatures: random() < 0.03 ? 4 : 5,
    })
  }
  return points
}

/** Mulberry32: the same numbers for the same seed. */
function dice(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const gauss = (random: () => number): number =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())

const HOSTERS = [
  95, 51, 185, 45, 78, 135, 162, 91, 46, 144, 23, 104, 65, 37, 193, 5, 88, 77, 212, 194, 31, 176, 82, 149,
  159, 107, 198, 199, 209, 109, 130, 54, 18, 203, 217,
]

const WORDS = [
  'alder',
  'aspen',
  'birch',
  'briar',
  'cedar',
  'clover',
  'elder',
  'fern',
  'fir',
  'hazel',
  'heather',
  'holly',
  'iris',
  'ivy',
  'juniper',
  'larch',
  'laurel',
  'lichen',
  'linden',
  'maple',
  'moss',
  'myrtle',
  'oak',
  'olive',
  'pine',
  'poplar',
  'reed',
  'rowan',
  'rush',
  'sage',
  'sedge',
  'sorrel',
  'spruce',
  'tansy',
  'thyme',
  'willow',
  'yarrow',
  'yew',
]

/** A week of a node, up and down a little; nothing of one that was not measured. */
function courseOf(bandwidth: number | undefined) {
  if (bandwidth === undefined) return []
  return Array.from({ length: 84 }, (_, i) => ({
    at: unixTime(START - (83 - i) * 2 * PERIOD),
    value: Math.round(bandwidth * 1000 * (1 + 0.1 * Math.sin(i / 5) - 0.1 * Math.sin(83 / 5))),
  }))
}
