/** `/nodes`: all of them, or those that were searched for. */
import { FLAGS, type NodeFacts } from '#directory/page/facts'
import type { Sheet } from '#directory/page/frame'
import { type Html, html } from '#directory/page/html'
import type { Outlook } from '#directory/page/outlook'
import { type Found, find, nodeTable, ROWS, type Wish, wishPath } from '#directory/page/table'
import { countText } from '#directory/page/wording'

export function nodesSheet(outlook: Outlook, nodes: readonly NodeFacts[], wish: Wish): Sheet {
  const found = find(nodes, wish)
  const { query, flag } = wish
  const first = (found.page - 1) * ROWS + 1
  const caption =
    found.total === 0
      ? 'No node'
      : found.pages === 1
        ? `${countText(found.total)} ${found.total === 1 ? 'node' : 'nodes'}`
        : `${countText(first)} to ${countText(first + found.rows.length - 1)} of ${countText(found.total)} nodes`
  return {
    title: query === '' ? 'Nodes' : `Nodes: ${query}`,
    place: 'nodes',
    query,
    body: html`<h1>Nodes</h1>
<form class="seek" action="/nodes" method="get" aria-label="Filter">
<input type="search" name="q" value="${query}" maxlength="64" aria-label="Name, address, pool or id" placeholder="Name, address, pool or id">
<select name="flag" aria-label="Flag"><option value="">any flag</option>${FLAGS.map((name) => (name === flag ? html`<option selected>${name}</option>` : html`<option>${name}</option>`))}</select>
<button type="submit">Show</button>${(query !== '' || flag !== undefined) && html`<a href="/nodes">Show all</a>`}
</form>
<p></p>
<section class="card" aria-label="Results">
${
  found.total === 0
    ? html`<p>No node of the document has a name with “${query}” in it, nor an address, pool or id that begins with it${flag !== undefined && ` and the flag ${flag}`}.</p>`
    : nodeTable(found.rows, { caption, now: outlook.now, wish })
}
${found.pages > 1 && pagesOf(found, wish)}
</section>`,
  }
}

function pagesOf({ page, pages }: Found, wish: Wish): Html {
  const near = new Set([1, pages, page - 2, page - 1, page, page + 1, page + 2])
  const shown = [...near].filter((n) => n >= 1 && n <= pages).sort((a, b) => a - b)
  return html`<nav aria-label="Pages of the table"><ul class="pages">${shown.map((n, i) => {
    const cut = i > 0 && shown[i - 1]! < n - 1
    const path = wishPath({ ...wish, page: n })
    return html`${cut && html`<li aria-hidden="true">…</li>`}<li>${n === page ? html`<a href="${path}" aria-current="page">${n}</a>` : html`<a href="${path}">${n}</a>`}</li>`
  })}</ul></nav>`
}
