/** Nodes as a table: searched, filtered, sorted and cut into pages by the address alone, so that it works without scripts. */
import { formatPrefix } from '#base/ip'
import type { UnixTime } from '#base/time'
import { byAddress, FLAGS, type Flag, matches, type NodeFacts } from '#directory/page/facts'
import { type Html, html } from '#directory/page/html'
import { agoText, momentText, rateText } from '#directory/page/wording'

export interface Wish {
  /** In lower case. */
  readonly query: string
  readonly flag?: Flag
  readonly sort: Sort
  readonly descending: boolean
  /** From 1. */
  readonly page: number
}

export const SORTS = ['name', 'address', 'bandwidth', 'published'] as const
export type Sort = (typeof SORTS)[number]

export const ROWS = 100

/** What an address asks for. Whatever it says, there is an answer: what cannot be understood was not said. */
export function readWish(asked: Readonly<Record<string, unknown>>): Wish {
  const text = (name: string): string => {
    const value = asked[name]
    return typeof value === 'string' ? value : ''
  }
  const flag = FLAGS.find((known) => known === text('flag'))
  const sort = SORTS.find((known) => known === text('sort')) ?? 'name'
  const page = /^[1-9]\d{0,4}$/.test(text('page')) ? Number(text('page')) : 1
  return {
    query: text('q').trim().toLowerCase().slice(0, 64),
    ...(flag === undefined ? {} : { flag }),
    sort,
    descending: text('order') === 'down',
    page,
  }
}

/** The address that asks for it; what goes without saying is left out, so that one wish has one address. */
export function wishPath({ query, flag, sort, descending, page }: Wish): string {
  const asked = new URLSearchParams()
  if (query !== '') asked.set('q', query)
  if (flag !== undefined) asked.set('flag', flag)
  if (sort !== 'name') asked.set('sort', sort)
  if (descending) asked.set('order', 'down')
  if (page > 1) asked.set('page', String(page))
  return asked.size === 0 ? '/nodes' : `/nodes?${asked}`
}

export interface Found {
  readonly rows: readonly NodeFacts[]
  readonly total: number
  readonly pages: number
  /** The last one, when the wish was for one behind it. */
  readonly page: number
}

export function find(nodes: readonly NodeFacts[], wish: Wish): Found {
  const { query, flag, sort, descending } = wish
  const found = nodes
    .filter(
      (facts) =>
        (query === '' || matches(facts, query)) && (flag === undefined || facts.flags.includes(flag)),
    )
    .sort(ORDERS[sort])
  if (descending) found.reverse()
  const pages = Math.max(1, Math.ceil(found.length / ROWS))
  const page = Math.min(wish.page, pages)
  return { rows: found.slice((page - 1) * ROWS, page * ROWS), total: found.length, pages, page }
}

export interface TableOptions {
  readonly caption: string
  readonly now: UnixTime
  /** Headings that sort; absent: they do not. */
  readonly wish?: Wish
}

export function nodeTable(rows: readonly NodeFacts[], { caption, now, wish }: TableOptions): Html {
  const heading = (name: string, sort: Sort | undefined, kind?: 'number'): Html => {
    if (wish === undefined || sort === undefined)
      return html`<th scope="col" class="${kind ?? 'text'}">${name}</th>`
    const own = wish.sort === sort
    const descending = own ? !wish.descending : sort === 'bandwidth' || sort === 'published'
    const link = html`<a href="${wishPath({ ...wish, sort, descending, page: 1 })}">${name}${own && (wish.descending ? ' ↓' : ' ↑')}</a>`
    return own
      ? html`<th scope="col" class="${kind ?? 'text'}" aria-sort="${wish.descending ? 'descending' : 'ascending'}">${link}</th>`
      : html`<th scope="col" class="${kind ?? 'text'}">${link}</th>`
  }
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0"><table>
<caption>${caption}</caption>
<thead><tr>${heading('Name', 'name')}${heading('Address', 'address')}${heading('Flags', undefined)}${heading('Bandwidth', 'bandwidth', 'number')}${heading('Pool', undefined)}${heading('Software', undefined)}${heading('Published', 'published')}</tr></thead>
<tbody>
${rows.map((facts) => rowOf(facts, now))}</tbody>
</table></div>`
}

export const flagList = (flags: readonly Flag[]): Html =>
  html`<ul class="flags">${flags.map((flag) => html`<li class="${flag}">${flag}</li>`)}</ul>`

function rowOf({ node, flags, bandwidth }: NodeFacts, now: UnixTime): Html {
  return html`<tr><th scope="row"><a href="/nodes/${node.nodeId}">${node.name}</a></th><td>${node.address}</td><td>${flagList(flags)}</td><td class="number">${bandwidth === undefined ? '–' : rateText(bandwidth)}</td><td>${formatPrefix(node.pool)}</td><td>${node.software}</td><td><time title="${momentText(node.published)}">${agoText(node.published, now)}</time></td></tr>
`
}

const byName = (a: NodeFacts, b: NodeFacts): number => (a.node.name < b.node.name ? -1 : 1)

const ORDERS: Readonly<Record<Sort, (a: NodeFacts, b: NodeFacts) => number>> = {
  name: byName,
  address: byAddress,
  bandwidth: (a, b) => (a.bandwidth ?? -1) - (b.bandwidth ?? -1) || byName(a, b),
  published: (a, b) => a.node.published - b.node.published || byName(a, b),
}
