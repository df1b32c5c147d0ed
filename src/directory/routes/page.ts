/**
 * The page: what the document says, for people. It runs no script and asks nobody else for anything: its policy forbids
 * both. What it shows is public, and the same for everybody.
 */
import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { brotliCompress, constants, gzip } from 'node:zlib'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isNodeId } from '#base/ids'
import type { Consensus } from '#directory/documents'
import { factsOf, type NodeFacts } from '#directory/page/facts'
import { EMPTY, frame, ICON, type Sheet } from '#directory/page/frame'
import { healthSheet } from '#directory/page/health'
import { networkSheet } from '#directory/page/network'
import { missingSheet, nodeSheet } from '#directory/page/node'
import { nodesSheet } from '#directory/page/nodes'
import type { Outlook } from '#directory/page/outlook'
import { readWish, wishPath } from '#directory/page/table'
import { STYLE } from '#directory/page/theme'
import { chooseCoding } from '#directory/publication'
import { SCHEMAS } from '#directory/routes/schemas'

/** Many who look at the same see the same bytes for so long, whatever it costs to make them. */
const KEPT_FOR = 5
const KEPT = 64

const POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash('sha256').update(STYLE.toString()).digest('base64')}'`,
  "img-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ')

/** `outlook` says how it is now; undefined: no document was ever made. */
export function pageRoutes(app: FastifyInstance, outlook: () => Outlook | undefined): void {
  const press = new Press()
  const nodesOf = factsMemo()
  const page = (
    path: string,
    config: object,
    sheet: (request: FastifyRequest, outlook: Outlook, nodes: readonly NodeFacts[]) => Ordered,
  ): void => {
    app.get(path, { config }, async (request, reply) => {
      const now = outlook()
      if (now === undefined) return send(request, reply.code(503), printOf(frame(EMPTY, undefined)))
      const ordered = sheet(request, now, nodesOf(now.consensus))
      if (ordered.missing) reply.code(404)
      return send(request, reply, press.print(ordered, now))
    })
  }
  page('/', SCHEMAS.network, (_request, now, nodes) => ({ path: '/', sheet: () => networkSheet(now, nodes) }))
  page('/health', SCHEMAS.consensusHealth, (_request, now) => ({
    path: '/health',
    sheet: () => healthSheet(now),
  }))
  page('/nodes', SCHEMAS.nodes, (request, now, nodes) => {
    const wish = readWish(request.query as Record<string, unknown>)
    return { path: wishPath(wish), sheet: () => nodesSheet(now, nodes, wish) }
  })
  page('/nodes/:id', SCHEMAS.node, (request, now, nodes) => {
    const { id } = request.params as { id: string }
    // Names are for people who type them; none is as long as an id.
    const facts = nodes.find(({ node }) => (isNodeId(id) ? node.nodeId === id : node.name === id))
    return facts === undefined
      ? { path: `missing ${id}`, sheet: () => missingSheet(id), missing: true }
      : { path: `/nodes/${facts.node.nodeId}`, sheet: () => nodeSheet(now, nodes, facts) }
  })
  app.get('/icon.svg', { config: SCHEMAS.icon }, (_request, reply) =>
    reply
      .header('content-security-policy', "default-src 'none'")
      .header('cache-control', 'public, max-age=86400')
      .type('image/svg+xml')
      .send(ICON),
  )
}

interface Ordered {
  /** Under which it is kept. */
  readonly path: string
  readonly sheet: () => Sheet
  readonly missing?: true
}

interface Print {
  readonly plain: Buffer
  readonly packed: Partial<Record<'br' | 'gzip', Promise<Buffer>>>
}

/** Pages as they go out, the last few of them kept. */
class Press {
  readonly #kept = new Map<string, Print & { readonly outlook: Outlook }>()

  print({ path, sheet }: Ordered, outlook: Outlook): Print {
    const kept = this.#kept.get(path)
    const age = outlook.now - (kept?.outlook.now ?? 0)
    if (kept?.outlook.consensus === outlook.consensus && age >= 0 && age < KEPT_FOR) return kept
    const print = { ...printOf(frame(sheet(), outlook)), outlook }
    this.#kept.delete(path)
    this.#kept.set(path, print)
    const [oldest] = this.#kept.keys()
    if (this.#kept.size > KEPT && oldest !== undefined) this.#kept.delete(oldest)
    return print
  }
}

const printOf = (text: string): Print => ({ plain: Buffer.from(text), packed: {} })

async function send(request: FastifyRequest, reply: FastifyReply, print: Print): Promise<FastifyReply> {
  const accepted = request.headers['accept-encoding']
  const coding = chooseCoding(typeof accepted === 'string' ? accepted : undefined)
  reply
    .header('content-security-policy', POLICY)
    .header('referrer-policy', 'no-referrer')
    .header('cache-control', `public, max-age=${KEPT_FOR}`)
    .header('vary', 'accept-encoding')
    .type('text/html; charset=utf-8')
  if (coding === 'identity') return reply.send(print.plain)
  print.packed[coding] ??= pack(print.plain, coding)
  return reply.header('content-encoding', coding).send(await print.packed[coding])
}

/** Of one document they are the same for every page. */
function factsMemo(): (consensus: Consensus) => readonly NodeFacts[] {
  let last: { consensus: Consensus; nodes: readonly NodeFacts[] } | undefined
  return (consensus) => {
    if (last?.consensus !== consensus) last = { consensus, nodes: consensus.nodes.map(factsOf) }
    return last.nodes
  }
}

const pack = (plain: Buffer, coding: 'br' | 'gzip'): Promise<Buffer> =>
  coding === 'gzip'
    ? compressGzip(plain)
    : compressBrotli(plain, {
        params: {
          [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT,
          [constants.BROTLI_PARAM_QUALITY]: 5,
          [constants.BROTLI_PARAM_SIZE_HINT]: plain.length,
        },
      })

const compressBrotli = promisify(brotliCompress)
const compressGzip = promisify(gzip)
