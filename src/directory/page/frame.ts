/** What all pages share: head, masthead with the search, footer. */
import { formatMoment } from '#directory/consensus'
import { type Content, type Html, html } from '#directory/page/html'
import type { Outlook } from '#directory/page/outlook'
import { STYLE } from '#directory/page/theme'

export type Place = 'network' | 'nodes' | 'health'

export interface Sheet {
  readonly title: string
  readonly place?: Place
  /** What is in the search field. */
  readonly query?: string
  readonly body: Content
}

/** A whole document. */
export function frame(sheet: Sheet, outlook: Outlook | undefined): string {
  const { title, place, query = '', body } = sheet
  const current = (which: Place): Html =>
    which === place
      ? html`<a href="${PLACES[which]}" aria-current="page">${NAMES[which]}</a>`
      : html`<a href="${PLACES[which]}">${NAMES[which]}</a>`
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>${title} · IPpriv directory</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<style>${STYLE}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header class="masthead"><div class="frame">
<a class="brand" href="/">${MARK}IPpriv directory</a>
<nav aria-label="Pages">${current('network')}${current('nodes')}${current('health')}</nav>
<form class="seek" role="search" action="/nodes" method="get">
<input type="search" name="q" value="${query}" maxlength="64" aria-label="Name, address or id of a node" placeholder="Name or address">
<button type="submit">Search</button>
</form>
</div></header>
<main id="content" class="frame" tabindex="-1">
${body}
</main>
<footer><div class="frame">
${outlook !== undefined && html`<p>Document ${outlook.consensus.serial}, valid after ${formatMoment(outlook.consensus.validAfter)}. The signed document itself: <a href="/v1/consensus">/v1/consensus</a>. Do not trust this page, verify that.</p>`}
<p>This page runs no script, sets no cookie and loads nothing from elsewhere.</p>
</div></footer>
</body>
</html>
`.toString()
}

const PLACES: Readonly<Record<Place, string>> = { network: '/', nodes: '/nodes', health: '/health' }
const NAMES: Readonly<Record<Place, string>> = {
  network: 'Network',
  nodes: 'Nodes',
  health: 'Consensus health',
}

/** Three nested tunnels. */
const MARK = html`<svg viewBox="0 0 26 26" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="2"><circle cx="13" cy="13" r="11.5" opacity=".35"/><circle cx="13" cy="13" r="7.2" opacity=".65"/><circle cx="13" cy="13" r="2.8" fill="currentColor"/></svg>`

/** There is nothing yet that could be shown. */
export const EMPTY: Sheet = {
  title: 'No document yet',
  body: html`<h1>No document yet</h1>
<p>The authorities have made no document since they began. The first one comes with the start of a period.</p>`,
}

export const ICON =
  html`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 26 26" fill="none" stroke="#4a90b8" stroke-width="2"><circle cx="13" cy="13" r="11.5" opacity=".45"/><circle cx="13" cy="13" r="7.2" opacity=".75"/><circle cx="13" cy="13" r="2.8" fill="#4a90b8"/></svg>`.toString()
