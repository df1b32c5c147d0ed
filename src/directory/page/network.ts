/** `/`: the network at a glance. */

import { spanText } from '#base/span'
import { lifeline, sparkline } from '#directory/page/charts'
import { FLAG_TEXTS, FLAGS, type Flag, type NodeFacts } from '#directory/page/facts'
import type { Sheet } from '#directory/page/frame'
import { type Html, html } from '#directory/page/html'
import { type Outlook, verdictOf } from '#directory/page/outlook'
import { ring } from '#directory/page/ring'
import { nodeTable } from '#directory/page/table'
import { countText, rateText, sizeText } from '#directory/page/wording'

/** With more nodes than this the bars of the ring do not lead to them: the page would weigh megabytes. */
const LINKED = 2000
const SHOWN = 12

export function networkSheet(outlook: Outlook, nodes: readonly NodeFacts[]): Sheet {
  const { consensus, now, history, size } = outlook
  const measured = nodes.filter(({ bandwidth }) => bandwidth !== undefined)
  const total = sum(measured.map(({ bandwidth }) => bandwidth ?? 0))
  const fastest = nodes
    .toSorted((a, b) => (b.bandwidth ?? 0) - (a.bandwidth ?? 0) || (a.node.name < b.node.name ? -1 : 1))
    .slice(0, SHOWN)
  const families = nodes.some(({ family }) => family !== undefined)
  const networks = new Set(nodes.map(({ network }) => network)).size
  const exits = having(nodes, 'exit')
  const guards = nodes.some(({ flags }) => flags.includes('guard')) ? having(nodes, 'guard') : undefined
  return {
    title: 'The network',
    place: 'network',
    body: html`<h1>The network</h1>
${stateLine(outlook, html` <a href="/health">Details</a>`)}
<dl class="tiles">
${tile('Nodes', countText(nodes.length), `in ${countText(networks)} networks (/16)`)}
${tile('Take clients', countText(having(nodes, 'entry')), guards === undefined ? 'as entry' : `${countText(guards)} as guard`)}
${tile('Exits', countText(exits), nodes.length === 0 ? '' : `${Math.round((100 * exits) / nodes.length)} % of all`)}
${tile('Bandwidth', measured.length === 0 ? '–' : rateText(total), measured.length === 0 ? 'nothing measured yet' : `${countText(measured.length)} nodes measured`)}
${tile('The document', sizeText(size.packed), `for a first start; ${sizeText(size.plain)} unpacked`)}
</dl>
<div class="pair">
<section class="card" aria-labelledby="ring">
<h2 id="ring">Nodes by network</h2>
${ring(nodes, { links: nodes.length <= LINKED, label: `${nodes.length} nodes around a ring, in the order of their addresses` })}
<ul class="key"><li class="exit">exit</li><li class="entry">entry, no exit</li><li>middle only</li>${families && html`<li class="kin">one family</li>`}</ul>
<p class="small soft">Neighbours on the ring are neighbours on the Internet; numbers are first octets of addresses. ${measured.length > 0 ? 'The longer a bar, the faster the node was measured to be (as the cube root).' : 'Bars get their length when bandwidth is measured.'} The tracks inside show who takes clients and who is exit. It is no map: the document says nothing about places, and nobody was asked.</p>
</section>
<div class="stack">
<section class="card" aria-labelledby="life"><h2 id="life">The document</h2>${lifeline(outlook)}</section>
<section class="card" aria-labelledby="course">
${
  measured.length > 0
    ? html`<h2 id="course">Bandwidth, measured: ${rateText(total)}</h2>${sparkline({ label: 'Bandwidth of all nodes', text: rateText, points: history.flatMap(({ at, bandwidth }) => (bandwidth === undefined ? [] : [{ at, value: bandwidth }])) })}`
    : html`<h2 id="course">Bandwidth</h2><p class="soft small">No node was measured yet. What a node says of itself does not count.</p>`
}
</section>
<section class="card" aria-labelledby="many">
<h2 id="many">Nodes: ${countText(nodes.length)}</h2>${sparkline({ label: 'Nodes', text: countText, points: history.map((point) => ({ at: point.at, value: point.nodes })) })}
</section>
<section class="card" aria-labelledby="shares">
<h2 id="shares">Flags</h2>
<ul class="shares">${FLAGS.map((flag) => share(flag, nodes))}</ul>
</section>
</div>
</div>
<section class="card" aria-labelledby="some">
<h2 id="some">${measured.length > 0 ? 'The fastest nodes' : 'Some nodes'}</h2>
${nodeTable(fastest, { caption: `${fastest.length} of ${countText(nodes.length)} nodes`, now })}
<p class="small"><a href="/nodes">All ${countText(nodes.length)} nodes</a></p>
</section>
<section class="card" aria-labelledby="words">
<h2 id="words">What the words mean</h2>
<dl class="facts small">${Object.entries(FLAG_TEXTS).map(([flag, text]) => html`<dt>${flag}</dt><dd>${text}</dd>`)}<dt>pool</dt><dd>The private addresses a node lends to circuits, assigned by the document from ${consensus.poolSpace.address}/${consensus.poolSpace.length}.</dd></dl>
</section>`,
  }
}

/** One sentence about how it is. */
export function stateLine(outlook: Outlook, more?: Html): Html {
  const { now, consensus, alarms, authorities, threshold } = outlook
  const verdict = verdictOf(outlook)
  const signed = authorities.filter((authority) => authority.signed).length
  const words: string[] = []
  if (now >= consensus.validUntil)
    words.push(`The document expired ${spanText(now - consensus.validUntil)} ago.`)
  else if (now >= consensus.freshUntil)
    words.push(`The document is stale: a new one was due ${spanText(now - consensus.freshUntil)} ago.`)
  else words.push('The document is fresh.')
  words.push(
    authorities.length === 1
      ? 'One authority signs it.'
      : `${signed} of ${authorities.length} authorities signed it, ${threshold} are needed.`,
  )
  if (alarms.length > 0)
    words.push(alarms.length === 1 ? 'One alarm stands.' : `${alarms.length} alarms stand.`)
  return html`<p class="state"><span class="dot ${verdict}"></span><span><strong class="${verdict}">${VERDICTS[verdict]}</strong> ${words.join(' ')}${more}</span></p>`
}

const VERDICTS = {
  well: 'All is well.',
  worn: 'It works, but not all is well.',
  ill: 'It does not work.',
} as const

const tile = (name: string, value: string, note: string): Html =>
  html`<div><dt>${name}</dt><dd>${value}<small>${note}</small></dd></div>`

/** How many have a flag: a bar, and the way to their list. */
function share(flag: Flag, nodes: readonly NodeFacts[]): Html | undefined {
  const count = having(nodes, flag)
  if (count === 0) return undefined
  const width = Math.round((1000 * count) / nodes.length) / 10
  return html`<li><a href="/nodes?flag=${flag}">${flag}</a><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="rest" width="100" height="8"/><rect class="${flag}" width="${width}" height="8"/></svg><span>${countText(count)}</span></li>`
}

const having = (nodes: readonly NodeFacts[], flag: NodeFacts['flags'][number]): number =>
  nodes.filter(({ flags }) => flags.includes(flag)).length

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
