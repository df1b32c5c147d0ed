/**
 * The dependency direction, by scanning the imports of src/: what a folder may import stands in one table, and
 * the core has no clock, no timer, no Node.js and no log. Imports point down this table only, so there are no cycles
 * between folders.
 */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** Folder -> folders it may import. `directory` is two: its pure files, and those with effects. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  base: [],
  wire: ['base'],
  crypto: ['base'],
  nat: ['base', 'wire', 'crypto'],
  'directory-pure': ['base', 'wire', 'crypto', 'nat'],
  ikev2: ['base', 'wire', 'crypto'],
  // Logs of connections against the rule of tickets.
  study: ['base', 'ikev2'],
  telescope: ['base', 'wire', 'crypto', 'ikev2'],
  overlay: ['base', 'wire', 'crypto', 'ikev2', 'nat', 'telescope', 'directory-pure'],
  // The effects. Each knows the interface it implements, and no machine of the core.
  'directory-effects': ['base', 'crypto', 'nat', 'directory-pure'],
  linux: ['base', 'wire', 'crypto', 'nat', 'telescope', 'overlay'],
  // `ikev2` as text for docs/, and nothing of it at run time.
  config: ['base', 'crypto', 'nat', 'directory-pure', 'directory-effects', 'ikev2'],
  observe: ['base', 'crypto', 'ikev2', 'telescope'],
  // The composition root: the only place that knows both the core and the effects.
  daemon: [
    ...[
      'base',
      'wire',
      'crypto',
      'ikev2',
      'nat',
      'telescope',
      'overlay',
      'directory-pure',
      'directory-effects',
    ],
    ...['linux', 'config', 'observe'],
  ],
  demo: ['base', 'wire', 'crypto', 'telescope', 'nat', 'directory-pure', 'linux', 'config', 'observe'],
  tune: ['base', 'linux'],
  cli: ['base', 'crypto', 'config', 'linux', 'observe', 'daemon', 'demo', 'tune', 'study'],
  main: ['base', 'cli'],
}

/** Of some folders only these files may be imported from there. */
const ONLY: Readonly<Record<string, Readonly<Record<string, RegExp>>>> = {
  linux: {
    overlay: /^overlay\/ports$/,
    nat: /^nat\/(rules|rulesets|exit-policy)$/,
  },
  config: {
    nat: /^nat\/(rules|exit-policy)$/,
    crypto: /^crypto\/(suites|public-key)$/,
    'directory-pure': /^directory\/(documents|parameters|token|version|work)$/,
    ikev2: /^ikev2\/explain$/,
    'directory-effects': /^directory\/interface$/,
  },
  study: { ikev2: /^ikev2\/resumption\/strategy$/ },
  observe: { ikev2: /^ikev2\/events$/, telescope: /^telescope\/plane$/, crypto: /^crypto\/suites$/ },
}

const CORE = ['base', 'wire', 'crypto', 'ikev2', 'telescope', 'nat', 'overlay', 'directory-pure']
/** Files of directory/ with effects; all others there are pure. */
const DIRECTORY_EFFECTS =
  /^directory\/(cache|client|backup|exchange|daemon|server|service|store|registry|council|messenger|authority-store|changed-file|token-file|upload|body|rate-limit|refusal|publication|shelf|watch|interface|routes\/.*)$/

const CLOCKS =
  /\b(Date\.now|new Date\(\)|performance\.now|setTimeout|setInterval|setImmediate|queueMicrotask|process\.|console\.|Math\.random)/
/** Packages that may be used in the core, by folder. */
const CORE_PACKAGES: Readonly<Record<string, RegExp>> = { crypto: /^@noble\//, 'directory-pure': /^typebox/ }

interface Source {
  /** Without `src/` and `.ts`. */
  readonly path: string
  readonly text: string
}

/** Every rule that a file breaks, one line each. */
function violations({ path, text }: Source): string[] {
  const folder = folderOf(path)
  const allowed = MAY_IMPORT[folder]
  if (allowed === undefined) return [`${path}: the folder ${folder} is not in the table of this test`]
  const core = CORE.includes(folder)
  const found: string[] = []
  for (const target of importsOf(text)) {
    if (target.startsWith('#')) {
      const to = target.slice(1)
      const toFolder = folderOf(to)
      if (toFolder !== folder && !allowed.includes(toFolder))
        found.push(`${path}: ${folder} may not import ${to}`)
      const only = ONLY[folder]?.[toFolder]
      if (only !== undefined && !only.test(to))
        found.push(`${path}: ${folder} may not import ${to} of ${toFolder}`)
    } else if (target.startsWith('.')) {
      if (!target.endsWith('/package.json')) found.push(`${path}: relative import ${target}`)
    } else if (core && target.startsWith('node:')) {
      if (!(path === 'crypto/node' && target === 'node:crypto')) found.push(`${path}: ${target} in the core`)
    } else if (core && !(CORE_PACKAGES[folder]?.test(target) ?? false))
      found.push(`${path}: package ${target} in the core`)
    else if (target === 'koffi' && path !== 'linux/ffi') found.push(`${path}: only linux/ffi imports koffi`)
  }
  if (core) {
    const clock = CLOCKS.exec(withoutComments(text))
    if (clock !== null) found.push(`${path}: ${clock[1]} in the core`)
  }
  return found
}

function folderOf(path: string): string {
  const [first = ''] = path.split('/')
  if (first !== 'directory') return first
  return DIRECTORY_EFFECTS.test(path) ? 'directory-effects' : 'directory-pure'
}

function importsOf(text: string): string[] {
  const code = withoutComments(text)
  const forms = [
    /\b(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]/g,
    /\bimport\s*\(?\s*['"]([^'"]+)['"]/g,
  ]
  return forms.flatMap((form) => [...code.matchAll(form)].map((match) => match[1]!))
}

const withoutComments = (text: string): string =>
  text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1')

const sources: Source[] = globSync('src/**/*.ts', { cwd: ROOT }).map((file) => ({
  path: file.replace(/^src\//, '').replace(/\.ts$/, ''),
  text: readFileSync(`${ROOT}/${file}`, 'utf8'),
}))

test('imports point in one direction, and the core is pure', () => {
  assert.ok(sources.length > 50)
  assert.deepEqual(sources.flatMap(violations), [])
})

test('the table itself has no cycle', () => {
  const seen = new Set<string>()
  const visit = (folder: string, trail: readonly string[]): void => {
    assert.ok(!trail.includes(folder), `cycle ${[...trail, folder].join(' -> ')}`)
    if (seen.has(folder)) return
    for (const next of MAY_IMPORT[folder] ?? assert.fail(folder)) visit(next, [...trail, folder])
    seen.add(folder)
  }
  for (const folder of Object.keys(MAY_IMPORT)) visit(folder, [])
})

test('no default exports, no file that became the project', () => {
  for (const { path, text } of sources) {
    assert.doesNotMatch(withoutComments(text), /^export default\b/m, path)
    assert.ok(text.split('\n').length <= 600, `${path} has ${text.split('\n').length} lines`)
  }
})

test('this test can fail', () => {
  const bad = (path: string, text: string) => violations({ path, text })
  assert.match(bad('wire/x', "import { a } from '#crypto/suites'")[0]!, /wire may not import crypto\/suites/)
  assert.match(
    bad('overlay/x', "import type {\n  A,\n} from '#linux/tun'")[0]!,
    /overlay may not import linux\/tun/,
  )
  assert.match(
    bad('linux/x', "import { R } from '#overlay/router'")[0]!,
    /linux may not import overlay\/router/,
  )
  assert.match(
    bad('ikev2/x', "const c = await import('#config/load')")[0]!,
    /ikev2 may not import config\/load/,
  )
  assert.match(bad('base/x', "import { readFileSync } from 'node:fs'")[0]!, /node:fs in the core/)
  assert.match(bad('crypto/other', "import { hash } from 'node:crypto'")[0]!, /node:crypto in the core/)
  assert.match(bad('telescope/x', "import { pino } from 'pino'")[0]!, /package pino in the core/)
  assert.match(bad('nat/x', 'const t = Date.now()')[0]!, /Date\.now in the core/)
  assert.match(bad('overlay/x', 'setTimeout(() => {}, 1)')[0]!, /setTimeout in the core/)
  assert.match(bad('linux/x', "import koffi from 'koffi'")[0]!, /only linux\/ffi imports koffi/)
  assert.match(bad('cli/x', "export * from './y.ts'")[0]!, /relative import/)
  assert.match(bad('novel/x', '')[0]!, /not in the table/)
  assert.deepEqual(bad('nat/x', "// Date.now()\nimport type { Ip } from '#base/ip'\n/* from 'pino' */"), [])
})
