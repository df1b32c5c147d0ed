/**
 * A flame graph as SVG of what V8 sampled: `node bench/flame.ts PROFILE.cpuprofile OUT.svg [TITLE]`. The same profile
 * gives the same octets. The picture is of a plane's worker at work: what waits, and what is not on the way of packets,
 * is left out.
 */
import { readFileSync, writeFileSync } from 'node:fs'

/** The part of a `.cpuprofile` that is read. */
export interface Profile {
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
    readonly children?: readonly number[]
  }[]
  readonly samples: readonly number[]
  /** Microseconds before each sample. */
  readonly timeDeltas: readonly number[]
}

export interface Frame {
  readonly name: string
  readonly kind: Kind
  /** Microseconds, those of children included. */
  total: number
  own: number
  readonly children: Map<string, Frame>
}

type Kind = 'kernel' | 'libcrypto' | 'node' | 'ours'

const COLOR: Readonly<Record<Kind, string>> = {
  kernel: '#c8553d',
  libcrypto: '#588b8b',
  node: '#b8b08d',
  ours: '#f2a65a',
}
const LEGEND: Readonly<Record<Kind, string>> = {
  kernel: 'system calls',
  libcrypto: 'libcrypto',
  node: 'Node.js',
  ours: 'our JavaScript',
}
/**
 * V8 sees no function of libc or libcrypto: their time is that of ours that calls them and does little else. By file
 * and function; what the function waits in, or what its time is.
 */
const FOREIGN: readonly (readonly [file: string, name: RegExp, kind: Kind, shown: string])[] = [
  ['esp-socket.ts', /^send$/, 'kernel', 'sendmmsg'],
  ['esp-socket.ts', /^receive$/, 'kernel', 'recvmmsg'],
  ['coalescer.ts', /^#write(One)?$/, 'kernel', 'write'],
  ['intake.ts', /^fill$/, 'kernel', 'read'],
  ['ciphers.ts', /^(seal|open)$/, 'libcrypto', 'EVP'],
]
/** The packet path begins here. Its own time is that of poll(), as it is in what only polls. */
const LOOP = '#loop plane-worker.ts'
const POLL = 'wait ffi.ts'
/** Narrower frames are not drawn, as a share of the whole. */
const LEAST = 0.002

/** The tree of who called whom below the loop of a worker, without what waits. */
export function fold(profile: Profile): Frame {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]))
  const parents = new Map(
    profile.nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])),
  )
  const root: Frame = newFrame('all', 'node')
  for (const [i, sample] of profile.samples.entries()) {
    const path: { name: string; kind: Kind }[] = []
    for (let id: number | undefined = sample; id !== undefined; id = parents.get(id)) {
      const frame = nodes.get(id)?.callFrame
      if (frame !== undefined && frame.functionName !== '(root)') path.unshift(labelOf(frame))
    }
    const begin = path.findIndex(({ name }) => name.startsWith(LOOP))
    const last = path.at(-1)
    if (begin < 0 || last === undefined || last.name.startsWith(LOOP) || last.name.startsWith(POLL)) continue
    const time = profile.timeDeltas[i] ?? 0
    let at = root
    at.total += time
    for (const { name, kind } of path.slice(begin)) {
      const child = at.children.get(name) ?? newFrame(name, kind)
      at.children.set(name, child)
      child.total += time
      at = child
    }
    at.own += time
  }
  return root
}

/** Time of each function itself, wherever it was called, most first. */
export function flat(root: Frame): { name: string; kind: Kind; share: number }[] {
  const own = new Map<string, { name: string; kind: Kind; share: number }>()
  const visit = (frame: Frame): void => {
    const entry = own.get(frame.name) ?? { name: frame.name, kind: frame.kind, share: 0 }
    entry.share += frame.own / root.total
    own.set(frame.name, entry)
    for (const child of frame.children.values()) visit(child)
  }
  visit(root)
  return [...own.values()].sort((a, b) => b.share - a.share || (a.name < b.name ? -1 : 1))
}

const WIDTH = 1000
const ROW = 17
const MARGIN = 10
const HEAD = 44

/** From the bottom up, callees above callers; children in the order of their names. */
export function draw(root: Frame, title: string): string {
  const boxes: string[] = []
  let depth = 0
  const place = (frame: Frame, x: number, row: number): void => {
    depth = Math.max(depth, row)
    const width = (frame.total / root.total) * (WIDTH - 2 * MARGIN)
    const share = ((100 * frame.total) / root.total).toFixed(1)
    const room = Math.floor((width - 4) / 6.2)
    const text = room < 3 ? '' : frame.name.length <= room ? frame.name : `${frame.name.slice(0, room - 1)}…`
    const at = `x="${x.toFixed(1)}" y="ROW${row}"`
    boxes.push(
      `<g><title>${xml(frame.name)} ${share} %</title><rect ${at} width="${Math.max(0.3, width - 0.5).toFixed(1)}" height="${ROW - 1}" fill="${COLOR[frame.kind]}"/>${
        text && `<text x="${(x + 2).toFixed(1)}" y="TXT${row}">${xml(text)}</text>`
      }</g>`,
    )
    let next = x
    const children = [...frame.children.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
    for (const child of children) {
      if (child.total / root.total >= LEAST) place(child, next, row + 1)
      next += (child.total / root.total) * (WIDTH - 2 * MARGIN)
    }
  }
  place(root, MARGIN, 0)
  const height = HEAD + (depth + 1) * ROW + MARGIN
  const y = (row: string) => height - MARGIN - (Number(row) + 1) * ROW
  const legend = (Object.keys(COLOR) as Kind[]).map(
    (kind, i) =>
      `<rect x="${MARGIN + i * 130}" y="26" width="11" height="11" fill="${COLOR[kind]}"/><text x="${MARGIN + 15 + i * 130}" y="36">${LEGEND[kind]}</text>`,
  )
  const body = boxes
    .join('\n')
    .replace(/ROW(\d+)/g, (_, row: string) => String(y(row)))
    .replace(/TXT(\d+)/g, (_, row: string) => String(y(row) + 12))
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="monospace" font-size="10">
<rect width="${WIDTH}" height="${height}" fill="#fff"/>
<text x="${MARGIN}" y="17" font-size="13">${xml(title)}</text>
${legend.join('\n')}
${body}
</svg>
`
}

function labelOf({ functionName, url, lineNumber }: Profile['nodes'][number]['callFrame']) {
  const name = functionName === '' ? '(anonymous)' : functionName
  const file = url.slice(url.lastIndexOf('/') + 1)
  const foreign = FOREIGN.find(([where, pattern]) => where === file && pattern.test(name))
  if (foreign !== undefined) return { name: `${name}: ${foreign[3]}`, kind: foreign[2] }
  const isOurs = url.includes('/src/')
  // Functions of the same name in different files are different ones.
  return {
    name: isOurs ? `${name} ${file}:${lineNumber + 1}` : name,
    kind: isOurs ? 'ours' : 'node',
  } as const
}

const newFrame = (name: string, kind: Kind): Frame => ({ name, kind, total: 0, own: 0, children: new Map() })
const xml = (text: string): string =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!)

if (import.meta.main) {
  const [profile, out, title = 'a relay of the userspace plane'] = process.argv.slice(2)
  if (profile === undefined || out === undefined) throw new Error('usage: flame.ts PROFILE OUT [TITLE]')
  const root = fold(JSON.parse(readFileSync(profile, 'utf8')) as Profile)
  writeFileSync(out, draw(root, title))
  for (const { name, kind, share } of flat(root).slice(0, 25))
    process.stdout.write(`${(100 * share).toFixed(1).padStart(5)} %  ${LEGEND[kind].padEnd(14)}  ${name}\n`)
}
