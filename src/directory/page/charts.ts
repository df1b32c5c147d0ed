/** The two small pictures: the course of a number, and the life of a document. */

import { spanText } from '#base/span'
import { type Html, html } from '#directory/page/html'
import type { Outlook } from '#directory/page/outlook'
import { distanceText, momentIso, momentText } from '#directory/page/wording'

export interface Course {
  readonly points: readonly { readonly at: number; readonly value: number }[]
  readonly text: (value: number) => string
  /** What it is the course of. */
  readonly label: string
}

/** From the lowest to the highest value, from the first to the last moment; both ends and extremes are said in words. */
export function sparkline({ points, text, label }: Course): Html {
  const first = points[0]
  const last = points.at(-1)
  if (first === undefined || last === undefined || points.length < 2)
    return html`<p class="soft small">There is no history yet: a point comes with every document.</p>`
  const values = points.map(({ value }) => value)
  const low = Math.min(...values)
  const high = Math.max(...values)
  // A course that hardly moves is drawn as such, not blown up.
  const range = Math.max(high - low, high * 0.1, 1)
  const floor = Math.max(0, (high + low - range) / 2)
  const span = last.at - first.at
  const course = points
    .map(({ at, value }, i) => {
      const x = round(((at - first.at) / span) * WIDTH)
      const y = round(HEIGHT - 4 - ((value - floor) / range) * (HEIGHT - 8))
      return `${i === 0 ? 'M' : 'L'}${x} ${y}`
    })
    .join('')
  const said = `${label}: ${text(first.value)} at first, ${text(last.value)} at last, between ${text(low)} and ${text(high)}`
  return html`<svg class="spark" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="${said}"><path class="area" d="${course}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z"/><path class="course" d="${course}"/></svg>
<p class="ends"><span>${spanText(span)} ago: ${text(first.value)}</span><span>between ${text(low)} and ${text(high)}</span></p>`
}

/** How far the document has lived: fresh, valid, over. */
export function lifeline({ consensus, now }: Outlook): Html {
  const { validAfter, freshUntil, validUntil } = consensus
  const length = validUntil - validAfter
  const place = (at: number): number =>
    round(Math.min(1, Math.max(0, (at - validAfter) / length)) * (WIDTH - 4))
  const row = (name: string, at: number) =>
    html`<tr><th scope="row">${name}</th><td><time datetime="${momentIso(at)}">${momentText(at)}</time></td><td>${distanceText(at, now)}</td></tr>`
  return html`<svg class="life" viewBox="0 0 ${WIDTH} 34" preserveAspectRatio="none" aria-hidden="true"><rect class="rest" y="14" width="${WIDTH}" height="8" rx="4"/><rect class="valid" y="14" width="${WIDTH}" height="8" rx="4"/><rect class="fresh" y="14" width="${place(freshUntil)}" height="8" rx="4"/><rect class="now" x="${place(now)}" y="6" width="4" height="24" rx="2"/></svg>
<table class="times"><tbody>
${row('valid after', validAfter)}${row('fresh until', freshUntil)}${row('valid until', validUntil)}
</tbody></table>`
}

const WIDTH = 600
const HEIGHT = 74

const round = (value: number): number => Math.round(value * 10) / 10
