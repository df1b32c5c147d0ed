/**
 * All nodes around a ring, in the order of their addresses: neighbours on it are neighbours on the Internet. The bar of a
 * node is as long as it is fast, the tracks inside say who may be entry and exit, arcs join families. There is no map:
 * the document says nothing about places, and a directory that asked somebody where its nodes are would tell who they are.
 */

import { byAddress, kindOf, type NodeFacts } from '#directory/page/facts'
import { type Content, type Html, html } from '#directory/page/html'
import { rateText } from '#directory/page/wording'

export interface RingOptions {
  /** Every bar leads to its node. Not for very many: each costs some hundred octets. */
  readonly links: boolean
  /** The id of the one that is shown among the others. */
  readonly here?: string
  readonly label: string
}

const CENTRE = 360
const RADIUS = { kin: 214, entry: 222, exit: 231, net: 239, bar: 245, longest: 332, label: 346 }
/** Between networks that differ in their first octet: together a sixth of the circle at most. */
const GAP = 0.022
/** Longer ones are slabs, not bars. */
const WIDEST = 12

export function ring(nodes: readonly NodeFacts[], { links, here, label }: RingOptions): Html {
  const seats = seatsOf(nodes)
  const width = Math.min(WIDEST, Math.max(0.7, seats.step * RADIUS.bar * 0.72))
  const top = Math.max(1, ...nodes.map((facts) => facts.bandwidth ?? 0))
  const bar = (seat: Seat): string => radial(seat.angle, RADIUS.bar, RADIUS.bar + lengthOf(seat.facts, top))
  const bars: Content = links
    ? seats.list.map(
        (seat) =>
          html`<a href="/nodes/${seat.facts.node.nodeId}"><title>${titleOf(seat.facts)}</title><path class="${kindOf(seat.facts)}" d="${bar(seat)}"/></a>`,
      )
    : KINDS.map((kind) => {
        const of = seats.list.filter(({ facts }) => kindOf(facts) === kind)
        return html`<path class="${kind}" d="${of.map(bar).join('')}"/>`
      })
  const shown = seats.list.find(({ facts }) => facts.node.nodeId === here)
  return html`<svg class="ring" viewBox="0 0 720 720" role="${links ? 'group' : 'img'}" aria-label="${label}">
${seats.sectors.map(sectorOf)}
<g class="${shown === undefined ? 'all' : 'all dim'}">
${kinship(seats.list)}
<path class="entry track" stroke-width="5" d="${track(seats, 'entry', RADIUS.entry)}"/>
<path class="exit track" stroke-width="5" d="${track(seats, 'exit', RADIUS.exit)}"/>
<g stroke-width="${round(width)}">${bars}</g>
</g>
${shown !== undefined && html`<path class="here" stroke-width="${round(Math.max(3, width))}" d="${radial(shown.angle, RADIUS.entry - 6, RADIUS.longest)}"/>`}
</svg>`
}

interface Seat {
  readonly facts: NodeFacts
  /** Radians, clockwise from the top. */
  readonly angle: number
}

interface Sector {
  readonly name: string
  readonly from: number
  readonly to: number
}

interface Seats {
  readonly list: readonly Seat[]
  readonly sectors: readonly Sector[]
  /** Radians from one to the next. */
  readonly step: number
}

function seatsOf(nodes: readonly NodeFacts[]): Seats {
  const sorted = nodes.toSorted(byAddress)
  const octet = ({ node }: NodeFacts): string => node.address.slice(0, node.address.indexOf('.'))
  const count = new Set(sorted.map(octet)).size
  const gap = count < 2 ? 0 : Math.min(GAP, Math.PI / 3 / count)
  const step = (2 * Math.PI - gap * count) / Math.max(1, sorted.length)
  const list: Seat[] = []
  const sectors: Sector[] = []
  let angle = gap / 2
  for (const [i, facts] of sorted.entries()) {
    const name = octet(facts)
    const open = sectors.at(-1)
    if (i === 0 || octet(sorted[i - 1]!) !== name) {
      if (i > 0) angle += gap
      sectors.push({ name, from: angle, to: angle + step })
    } else if (open !== undefined) sectors[sectors.length - 1] = { ...open, to: angle + step }
    list.push({ facts, angle: angle + step / 2 })
    angle += step
  }
  return { list, sectors, step }
}

/** Bars grow with the cube root of what was measured, so that one giant does not hide the others. */
function lengthOf({ bandwidth }: NodeFacts, top: number): number {
  const longest = RADIUS.longest - RADIUS.bar
  return bandwidth === undefined ? longest * 0.4 : 4 + (longest - 4) * Math.cbrt(bandwidth / top)
}

/** The networks of one first octet, named where there is room. */
function sectorOf({ name, from, to }: Sector): Html {
  const middle = (from + to) / 2
  const [x, y] = at(middle, RADIUS.label)
  const room = (to - from) * RADIUS.label > 26
  return html`<path class="net" d="${arc(from, to, RADIUS.net)}"/>${room && html`<text x="${round(x)}" y="${round(y + 4)}" text-anchor="middle">${name}</text>`}`
}

function track({ list, step }: Seats, kind: 'entry' | 'exit', radius: number): string {
  // Neighbours that have it make one arc.
  let path = ''
  let from: number | undefined
  let to = 0
  for (const { facts, angle } of list) {
    const has = facts.flags.includes(kind)
    const begin = angle - step / 2
    if (from !== undefined && (!has || begin - to > step / 100)) {
      path += arc(from, to, radius)
      from = undefined
    }
    if (!has) continue
    from ??= begin
    to = angle + step / 2
  }
  return from === undefined ? path : path + arc(from, to, radius)
}

/** Each member with the next one of its family around the ring, and the last with the first. */
function kinship(seats: readonly Seat[]): Html | undefined {
  const families = new Map<string, number[]>()
  for (const { facts, angle } of seats) {
    if (facts.family === undefined) continue
    const members = families.get(facts.family)
    if (members === undefined) families.set(facts.family, [angle])
    else members.push(angle)
  }
  let path = ''
  for (const members of families.values()) {
    if (members.length < 2) continue
    const [first = 0] = members
    const round = members.length > 2 ? [...members, first] : members
    path += round
      .map((angle, i) => `${i === 0 ? 'M' : `Q${CENTRE} ${CENTRE} `}${point(angle, RADIUS.kin)}`)
      .join('')
  }
  return path === '' ? undefined : html`<path class="kin" d="${path}"/>`
}

function titleOf({ node, flags, bandwidth }: NodeFacts): string {
  const speed = bandwidth === undefined ? '' : `, ${rateText(bandwidth)}`
  return `${node.name}, ${node.address}${speed}: ${flags.join(', ')}`
}

const KINDS = ['middle', 'entry', 'exit'] as const

const radial = (angle: number, from: number, to: number): string =>
  `M${point(angle, from)}L${point(angle, to)}`

function arc(from: number, to: number, radius: number): string {
  // The ends of a full circle are one point, and an arc between them is nothing: two halves.
  if (to - from > 2 * Math.PI - 0.001) {
    const half = from + Math.PI
    return arc(from, half, radius) + arc(half, to - 0.002, radius)
  }
  return `M${point(from, radius)}A${radius} ${radius} 0 ${to - from > Math.PI ? 1 : 0} 1 ${point(to, radius)}`
}

const at = (angle: number, radius: number): readonly [number, number] => [
  CENTRE + radius * Math.sin(angle),
  CENTRE - radius * Math.cos(angle),
]

function point(angle: number, radius: number): string {
  const [x, y] = at(angle, radius)
  return `${round(x)} ${round(y)}`
}

const round = (value: number): number => Math.round(value * 10) / 10
