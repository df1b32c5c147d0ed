/** `/nodes/<id>`: all that the document says about one node. */
import { toHex } from '#base/bytes'
import { formatPrefix } from '#base/ip'
import { sparkline } from '#directory/page/charts'
import { FLAG_TEXTS, type NodeFacts } from '#directory/page/facts'
import type { Sheet } from '#directory/page/frame'
import { type Html, html } from '#directory/page/html'
import type { Outlook } from '#directory/page/outlook'
import { ring } from '#directory/page/ring'
import { flagList, nodeTable } from '#directory/page/table'
import { countText, distanceText, momentIso, momentText, rateText } from '#directory/page/wording'
import { formatExitPolicy } from '#nat/exit-policy'

/** Neighbours and families that are shown. */
const SHOWN = 20

export function nodeSheet(outlook: Outlook, nodes: readonly NodeFacts[], facts: NodeFacts): Sheet {
  const { node, flags, bandwidth, network } = facts
  const neighbours = nodes.filter((other) => other.network === network && other !== facts)
  const family = nodes.filter(
    (other) => facts.family !== undefined && other.family === facts.family && other !== facts,
  )
  const rank = 1 + nodes.filter((other) => (other.bandwidth ?? 0) > (bandwidth ?? 0)).length
  const rules = formatExitPolicy(node.exitPolicy)
  return {
    title: node.name,
    body: html`<p class="small"><a href="/nodes">Nodes</a></p>
<h1>${node.name}</h1>
<div class="state">${flagList(flags)}</div>
<div class="pair">
<div>
<section class="card" aria-labelledby="facts"><h2 id="facts">What the document says</h2>
<dl class="facts">
<dt>Address</dt><dd>${node.address}, UDP port ${node.port}</dd>
<dt>Network</dt><dd>${network}</dd>
<dt>Bandwidth</dt><dd>${bandwidth === undefined ? 'not measured yet' : html`${rateText(bandwidth)}, number ${countText(rank)} of ${countText(nodes.length)}`}</dd>
<dt>Pool it lends</dt><dd>${formatPrefix(node.pool)}</dd>
<dt>Software</dt><dd>${node.software}</dd>
<dt>Published</dt><dd><time datetime="${momentIso(node.published)}">${momentText(node.published)}</time>, ${distanceText(node.published, outlook.now)}</dd>
<dt>Node id</dt><dd class="mono">${node.nodeId}</dd>
<dt>Identity key</dt><dd class="mono">${toHex(node.identityKey)}</dd>
<dt>IKE key</dt><dd class="mono">${keyText(node.ikeKey)}</dd>
<dt>Anonymous peers</dt><dd>${node.ike === undefined ? 'by NULL authentication (RFC 7619)' : 'by a published pre-shared key: a stock IKEv2 router'}</dd>
</dl></section>
<section class="card" aria-labelledby="course"><h2 id="course">Bandwidth, measured</h2>
${sparkline({ label: `Bandwidth of ${node.name}`, text: rateText, points: outlook.courseOf(node.nodeId) })}
</section>
<section class="card" aria-labelledby="policy"><h2 id="policy">Exit policy</h2>
${exitText(rules, flags.includes('exit'))}
</section>
</div>
<div>
<section class="card" aria-labelledby="place"><h2 id="place">Among the others</h2>
${ring(nodes, { links: false, here: node.nodeId, label: `${node.name} among ${nodes.length} nodes, in the order of their addresses` })}
</section>
<section class="card" aria-labelledby="flags"><h2 id="flags">Flags</h2>
<dl class="facts small">${flags.map((flag) => html`<dt>${flag}</dt><dd>${FLAG_TEXTS[flag]}</dd>`)}</dl></section>
</div>
</div>
${family.length > 0 && others('Its family', `${countText(family.length)} more of its family: never two of them in one path`, family, outlook)}
${neighbours.length > 0 && others('Its neighbours', `${countText(neighbours.length)} more in ${network}: never two of one network in one path`, neighbours, outlook)}`,
  }
}

/** There is no such node, or not any more. */
export function missingSheet(what: string): Sheet {
  return {
    title: 'Not found',
    body: html`<h1>Not found</h1>
<p>The document lists no node “${what}”. It may have been silent for too long: <a href="/nodes">all nodes</a>.</p>`,
  }
}

function exitText(rules: readonly string[], exit: boolean): Html {
  if (!exit) return html`<p class="soft">It is no exit.</p>`
  return html`<p class="soft small">The first rule that fits decides; what fits none is refused.</p>
<ol class="plain mono">${rules.map((rule) => html`<li>${rule}</li>`)}</ol>`
}

const others = (title: string, caption: string, list: readonly NodeFacts[], { now }: Outlook): Html =>
  html`<section class="card"><h2>${title}</h2>${nodeTable(list.slice(0, SHOWN), { caption, now })}</section>`

/** Ed25519 keys are shown whole, others are too long for that. */
const keyText = (key: Uint8Array): string =>
  key.length === 32 ? toHex(key) : `${toHex(key.subarray(0, 24))}… (${key.length} octets)`
