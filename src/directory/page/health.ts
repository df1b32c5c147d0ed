/** `/health`: how the document came about: authorities, signatures, and what is wrong since when. */

import { spanText } from '#base/span'
import { ALARM_TEXTS, type Alarm } from '#directory/alarms'
import { lifeline, sparkline } from '#directory/page/charts'
import type { Sheet } from '#directory/page/frame'
import { type Html, html } from '#directory/page/html'
import { stateLine } from '#directory/page/network'
import type { AuthorityOutlook, Outlook } from '#directory/page/outlook'
import { countText, distanceText, momentIso, momentText, shortKey } from '#directory/page/wording'

export function healthSheet(outlook: Outlook): Sheet {
  const { authorities, threshold, alarms, consensus, history } = outlook
  const signed = authorities.filter((authority) => authority.signed).length
  return {
    title: 'Consensus health',
    place: 'health',
    body: html`<h1>Consensus health</h1>
${stateLine(outlook)}
<div class="pair">
<section class="card" aria-labelledby="who"><h2 id="who">Authorities</h2>
<div class="scroll" role="region" aria-label="Authorities" tabindex="0"><table>
<caption>${signed} of ${authorities.length} signed document ${consensus.serial}; ${threshold} signatures make it valid</caption>
<thead><tr><th scope="col">Name</th><th scope="col">Key</th><th scope="col">Vote</th><th scope="col">Signature</th><th scope="col">Alarms</th></tr></thead>
<tbody>${authorities.map((authority) => authorityRow(authority, alarms))}</tbody>
</table></div>
</section>
<section class="card" aria-labelledby="life"><h2 id="life">Document ${consensus.serial}</h2>${lifeline(outlook)}</section>
</div>
<section class="card" aria-labelledby="alarms"><h2 id="alarms">Alarms</h2>
${alarms.length === 0 ? html`<p class="soft">None stands, as seen from this directory.</p>` : alarmTable(outlook)}
</section>
<section class="card" aria-labelledby="course"><h2 id="course">Signatures</h2>
${sparkline({ label: 'Signatures', text: countText, points: history.map(({ at, signatures }) => ({ at, value: signatures })) })}
</section>`,
  }
}

function authorityRow({ name, key, signed, voted, self }: AuthorityOutlook, alarms: readonly Alarm[]): Html {
  const own = alarms.filter(({ authority }) => authority === name)
  return html`<tr><th scope="row">${name}${self && html` <span class="soft">(this one)</span>`}</th><td class="mono" title="${key}">${shortKey(key)}</td><td>${voted === undefined ? '–' : told(voted, 'came')}</td><td>${told(signed, 'valid')}</td><td>${own.length === 0 ? 'none' : own.map((alarm) => alarm.name).join(', ')}</td></tr>
`
}

const told = (good: boolean, word: string): Html =>
  good ? html`<span class="well">${word}</span>` : html`<span class="ill">missing</span>`

const alarmTable = ({ alarms, now }: Outlook): Html =>
  html`<div class="scroll" role="region" aria-label="Alarms" tabindex="0"><table>
<caption>${alarms.length === 1 ? 'One alarm stands' : `${alarms.length} alarms stand`}</caption>
<thead><tr><th scope="col">Alarm</th><th scope="col">About</th><th scope="col">Since</th><th scope="col">Last</th><th scope="col">What it means</th></tr></thead>
<tbody>${alarms.map(
    ({ name, authority, since, last, detail }) =>
      html`<tr><th scope="row" class="ill">${name}</th><td>${authority ?? 'this directory'}</td><td><time datetime="${momentIso(since)}">${momentText(since)}</time>, for ${spanText(now - since)}</td><td>${distanceText(last, now)}</td><td class="long">${ALARM_TEXTS[name] ?? ''}${detail !== undefined && ` ${detail}`}</td></tr>
`,
  )}</tbody></table></div>`
