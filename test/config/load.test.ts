import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import Value from 'typebox/value'
import { LineCounter, parseDocument } from 'yaml'
import { fromHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { prefix } from '#base/ip'
import { parseDirectoryUrl } from '#config/formats'
import { loadConfig, parseConfig } from '#config/load'
import { type ConfigKind, SCHEMAS, schemaOf } from '#config/schema'
import { validate } from '#config/validate'
import { DEFAULT_PARAMETERS } from '#directory/parameters'
import { PROTECTED_DESTINATIONS } from '#nat/exit-policy'

const KEY = 'ab'.repeat(32)
const NODE = `name: alder
address: 198.18.10.1
roles: [entry, middle, exit]
state: /var/lib/ippriv/node
directory: { url: "http://198.18.50.1:9030", key: "${KEY}" }
`
const CLIENT = `state: /var/lib/ippriv/client
directory: { url: "http://198.18.50.1:9030", key: "${KEY}" }
`
const DIRECTORY = `listen: { address: 0.0.0.0, port: 9030 }
state: state
`

const errorOf = (kind: ConfigKind, text: string): IpprivError => {
  try {
    parseConfig(kind, text, 'f.yaml')
  } catch (error) {
    assert.ok(error instanceof IpprivError, String(error))
    return error
  }
  return assert.fail(`accepted:\n${text}`)
}

test('a stock router: its published key, and where its public key is', () => {
  const stock = (text: string) => parseConfig('node', `${NODE}stock: ${text}`, '/etc/i/node.yaml').stock
  assert.deepEqual(stock('{ key: open-sesame }'), { key: 'open-sesame', publicKey: undefined })
  assert.deepEqual(stock('{ key: k, publicKey: r.pem }'), { key: 'k', publicKey: '/etc/i/r.pem' })
  for (const wrong of ['{}', '{ key: "" }', '{ key: "a b" }', '{ key: a/b }', `{ key: ${'k'.repeat(65)} }`])
    assert.match(errorOf('node', `${NODE}stock: ${wrong}`).message, /stock/)
})

test('metrics: only on demand, and on loopback unless told otherwise', () => {
  const metrics = (text: string) => parseConfig('client', `${CLIENT}metrics: ${text}`, 'f').metrics
  assert.equal(parseConfig('client', CLIENT, 'f').metrics, undefined)
  assert.deepEqual(metrics('{ listen: { port: 9464 } }'), { address: '127.0.0.1', port: 9464 })
  assert.deepEqual(metrics('{ listen: { address: 198.18.1.1, port: 1 } }'), {
    address: '198.18.1.1',
    port: 1,
  })
  assert.match(errorOf('client', `${CLIENT}metrics: {}`).message, /metrics/)
})

test('a node: values and defaults', () => {
  const config = parseConfig(
    'node',
    `${NODE}exit: { policy: [accept 0.0.0.0/0 tcp 80-443] }\ndebug: { keylog: k }`,
    '/etc/i/node.yaml',
  )
  assert.deepEqual(config, {
    kind: 'node',
    file: '/etc/i/node.yaml',
    state: '/var/lib/ippriv/node',
    control: '/run/ippriv/node.sock',
    metrics: undefined,
    log: { level: 'info', format: 'json' },
    name: 'alder',
    address: '198.18.10.1',
    roles: ['entry', 'middle', 'exit'],
    keys: '/var/lib/ippriv/node/keys',
    plane: 'auto',
    userspace: { workers: 1, parallel: 'connection' },
    directory: {
      kind: 'pinned',
      servers: [{ url: 'http://198.18.50.1:9030', address: '198.18.50.1', port: 9030 }],
      keys: [fromHex(KEY)],
      threshold: 1,
      mirrors: [],
    },
    stock: undefined,
    exitPolicy: [
      ...PROTECTED_DESTINATIONS,
      { action: 'accept', destination: { address: '0.0.0.0', length: 0 }, protocol: 'tcp', ports: [80, 443] },
    ],
    bandwidth: undefined,
    cache: 'overlay',
    family: undefined,
    token: undefined,
    resumption: { kind: 'clocked', limit: 7_200_000 },
    keylog: '/etc/i/k',
  })
  const resumption = (text: string) => parseConfig('node', `${NODE}resumption: ${text}`, 'f').resumption
  assert.equal(resumption('{ strategy: off }'), undefined)
  assert.deepEqual(resumption('{ strategy: data }'), { kind: 'data', limit: 50 * 2 ** 20 })
  assert.deepEqual(resumption('{ strategy: established, limit: 90 }'), { kind: 'established', limit: 90_000 })
  assert.throws(() => resumption('{ limit: 86401 }'), /resumption.limit: .*at most 86400/)
  assert.deepEqual(
    parseConfig('node', NODE.replace(', exit]', ']'), 'f').exitPolicy,
    [],
    'no exit, no policy',
  )
})

test('a client: values and defaults', () => {
  const config = parseConfig('client', CLIENT, '/c.yaml')
  assert.equal(config.address, undefined)
  assert.deepEqual(config.circuit, {
    hops: 3,
    cipher: 'aes-256-gcm-16',
    path: undefined,
    spares: 2,
    rotation: 3_600_000,
    exit: undefined,
    exclude: [],
    excludeNetworks: [],
    sameNetwork: false,
    onDemand: false,
  })
  assert.equal(config.control, '/run/ippriv/client.sock')
  const own = parseConfig(
    'client',
    `${CLIENT}circuit: { path: [alder, birch], cipher: chacha20-poly1305 }`,
    '/c.yaml',
  )
  assert.deepEqual(own.circuit, {
    hops: 2,
    cipher: 'chacha20-poly1305',
    path: ['alder', 'birch'],
    spares: 2,
    rotation: 3_600_000,
    exit: undefined,
    exclude: [],
    excludeNetworks: [],
    sameNetwork: false,
    onDemand: false,
  })
  const id = '0f'.repeat(32)
  const choosy = parseConfig(
    'client',
    `${CLIENT}circuit: { exit: ${id}, exclude: [alder, 198.51.100.0/24, ${id}] }`,
    '/c.yaml',
  )
  assert.equal(choosy.circuit.exit, id)
  assert.deepEqual(choosy.circuit.exclude, ['alder', id])
  assert.deepEqual(choosy.circuit.excludeNetworks, [prefix('198.51.100.0/24')])
  for (const bad of ['[Alder]', '["198.51.100.1/24"]', '[alder, alder]', '["de "]'])
    assert.throws(
      () => parseConfig('client', `${CLIENT}circuit: { exclude: ${bad} }`, 'f'),
      /circuit.exclude/,
    )
  assert.throws(
    () => parseConfig('client', `${CLIENT}circuit: { exit: 198.51.100.0/24 }`, 'f'),
    /circuit.exit/,
  )
})

test('a directory: values and defaults; paths are relative to the file', () => {
  const config = parseConfig('directory', DIRECTORY, '/etc/ippriv/directory.yaml')
  assert.deepEqual(config.poolSpace, { address: '10.64.0.0', length: 10 })
  assert.equal(config.poolLength, 20)
  assert.equal(config.period, 3600)
  assert.equal(config.state, '/etc/ippriv/state')
  assert.equal(config.keys, '/etc/ippriv/state/keys')
})

test('isolation: groups by user, mark and destination, named once, each by something', () => {
  const isolation = (text: string) => parseConfig('client', `${CLIENT}isolation: ${text}`, 'f').isolation
  assert.deepEqual(parseConfig('client', CLIENT, 'f').isolation, [])
  assert.deepEqual(
    isolation(
      '[{ name: a, user: 0 }, { name: b, mark: 7 }, { name: c, user: 1, destination: 203.0.113.0/24 }]',
    ),
    [
      { name: 'a', user: 0 },
      { name: 'b', mark: 7 },
      { name: 'c', user: 1, destination: prefix('203.0.113.0/24') },
    ],
  )
  const refused: readonly (readonly [string, RegExp])[] = [
    ['[{ name: a }]', /isolation\[0\]: expected at least one of user, mark and destination/],
    ['[{ user: 1 }]', /isolation\[0\]/],
    ['[{ name: a, user: 1 }, { name: a, user: 2 }]', /isolation\[1\].name: expected every name once/],
    ['[{ name: default, user: 1 }]', /isolation\[0\].name/],
    ['[{ name: a, user: root }]', /isolation\[0\].user: expected an integer/],
    ['[{ name: a, user: -1 }]', /isolation\[0\].user/],
    ['[{ name: a, mark: 0 }]', /isolation\[0\].mark/],
    ['[{ name: a, mark: 0x4950 }]', /isolation\[0\].mark: expected another mark/],
    ['[{ name: a, destination: 203.0.113.1/24 }]', /isolation\[0\].destination/],
    [`[${Array.from({ length: 9 }, (_, i) => `{ name: g${i}, user: ${i} }`)}]`, /isolation/],
  ]
  for (const [text, message] of refused)
    assert.match(errorOf('client', `${CLIENT}isolation: ${text}`).message, message, text)
  assert.match(
    errorOf('client', `${CLIENT}circuit: { onDemand: true }\nisolation: [{ name: a, user: 1 }]`).message,
    /isolation: expected no groups with circuit.onDemand/,
  )
})

test('several authorities: of a client by keys and threshold, of an authority by name; or a file', () => {
  const [other, third] = ['b'.repeat(64), 'c'.repeat(64)]
  const client = (directory: string) =>
    parseConfig('client', `state: s\ndirectory: ${directory}\n`, '/etc/i/f.yaml').directory
  const urls = '["http://198.18.50.1:9030", "http://198.18.50.2:9030"]'
  const keys = `["${KEY}", "${other}", "${third}"]`
  assert.deepEqual(client(`{ urls: ${urls}, keys: ${keys}, threshold: 2 }`), {
    kind: 'pinned',
    servers: [1, 2].map((n) => ({
      url: `http://198.18.50.${n}:9030`,
      address: `198.18.50.${n}`,
      port: 9030,
    })),
    keys: [KEY, other, third].map(fromHex),
    threshold: 2,
    mirrors: [],
  })
  const mirrors = [{ url: 'http://192.0.2.1:9031', address: '192.0.2.1', port: 9031 }]
  const file = { kind: 'bootstrap', file: '/etc/i/net.txt' }
  assert.deepEqual(client('{ bootstrap: net.txt }'), { ...file, mirrors: [] })
  assert.deepEqual(client('{ bootstrap: net.txt, mirrors: ["http://192.0.2.1:9031"] }'), { ...file, mirrors })
  for (const wrong of [
    '[]',
    '["http://mirror:9031"]',
    '["https://192.0.2.1:9031"]',
    '"http://192.0.2.1:9031"',
  ])
    assert.match(
      errorOf('client', `state: s\ndirectory: { bootstrap: n, mirrors: ${wrong} }`).message,
      /mirrors/,
    )
  const authority = (name: string, key: string, n: number) =>
    `  - { name: ${name}, key: "${key}", url: "http://198.18.50.${n}:9030" }\n`
  const both = `authorities:\n${authority('ash', KEY, 1)}${authority('bay', other, 2)}`
  const council = (text: string) => parseConfig('directory', `${DIRECTORY}${text}`, '/etc/i/f.yaml').council
  assert.deepEqual(council(`${both}threshold: 2\n`), {
    kind: 'pinned',
    authorities: [
      { name: 'ash', key: fromHex(KEY), url: 'http://198.18.50.1:9030' },
      { name: 'bay', key: fromHex(other), url: 'http://198.18.50.2:9030' },
    ],
    threshold: 2,
  })
  assert.deepEqual(council('bootstrap: net.txt\n'), { kind: 'bootstrap', file: '/etc/i/net.txt' })
  assert.equal(council(''), undefined)
  const wrong: [() => unknown, RegExp][] = [
    [() => client('{}'), /directory: expected the key url; or urls, keys and threshold; or bootstrap/],
    [() => client(`{ url: "http://198.18.50.1:9030" }`), /expected the key key/],
    [() => client(`{ urls: ${urls}, keys: ${keys} }`), /expected urls, keys and threshold, all three/],
    [() => client(`{ url: "http://198.18.50.1:9030", key: "${KEY}", threshold: 1 }`), /either url and key/],
    [
      () => client(`{ urls: ${urls}, keys: ${keys}, threshold: 1 }`),
      /threshold: expected more than half of the 3/,
    ],
    [() => client(`{ urls: ${urls}, keys: ${keys}, threshold: 4 }`), /threshold: .*, found 4/],
    [() => client(`{ urls: ${urls}, keys: ["${KEY}", "${KEY}"], threshold: 2 }`), /every value once/],
    [() => client(`{ bootstrap: f, url: "http://198.18.50.1:9030" }`), /bootstrap alone/],
    [() => council(both), /expected authorities and threshold, both/],
    [() => council(`${both}threshold: 1\n`), /threshold: expected more than half of the 2/],
    [() => council(`${both}threshold: 2\nbootstrap: f\n`), /either bootstrap, or authorities/],
    [() => council(`${both}threshold: 2\nperiod: 10\n`), /period: expected at least 24 seconds/],
    [() => council('network: { mtu: 1200 }\n'), /network: expected none without authorities/],
    [
      () => council(`${both}threshold: 2\nnetwork: { minimum: "1.2" }\n`),
      /network.minimum: expected a version/,
    ],
    [() => council(`${both}threshold: 2\nnetwork: { mtu: 100 }\n`), /network.mtu: expected an integer 576/],
    [
      () => council(`authorities:\n${authority('ash', KEY, 1)}${authority('ash', other, 2)}threshold: 2\n`),
      /authorities: expected every name once/,
    ],
  ]
  for (const [attempt, expected] of wrong) assert.throws(attempt, expected)
  const proposed = (text: string) =>
    parseConfig('directory', `${DIRECTORY}${both}threshold: 2\n${text}`, 'f').parameters
  assert.deepEqual(proposed('network: { minimum: 1.2.0 }\n'), { ...DEFAULT_PARAMETERS, minimum: '1.2.0' })
  assert.equal(proposed(''), undefined)
})

test('an error names file, line and column, what was expected and what was found', () => {
  const rows: [ConfigKind, string, RegExp][] = [
    [
      'node',
      NODE.replace('198.18.10.1', '198.18.10.256'),
      /f\.yaml:2:10: address: expected an IPv4 address such as .*, found "198\.18\.10\.256"/,
    ],
    [
      'node',
      NODE.replace('middle', 'guard'),
      /f\.yaml:3:16: roles\[1\]: expected one of entry, middle, exit, found "guard"/,
    ],
    [
      'node',
      NODE.replace('middle', 'entry'),
      /f\.yaml:3:16: roles\[1\]: expected every value once, found "entry" again/,
    ],
    [
      'node',
      NODE.replace('[entry, middle, exit]', '[]'),
      /f\.yaml:3:8: roles: expected a list of roles.*, found a list of 0/,
    ],
    [
      'node',
      NODE.replace('[entry, middle, exit]', 'exit'),
      /f\.yaml:3:8: roles: expected a list of roles.*, found "exit"/,
    ],
    [
      'node',
      NODE.replace('alder', 'Alder!'),
      /f\.yaml:1:7: name: expected a name of 1\.\.19 characters .*, found "Alder!"/,
    ],
    ['node', NODE.replace('name: alder', 'name:'), /f\.yaml:1:6: name: expected a name .*, found nothing/],
    ['node', NODE.replace('name: alder\n', ''), /f\.yaml:1:1: name: expected a name .*, found nothing/],
    [
      'node',
      `${NODE}plain: auto\n`,
      /f\.yaml:6:1: plain: expected one of the keys .*, found an unknown key \(did you mean plane\?\)/,
    ],
    [
      'node',
      `${NODE}exit: { policy: [allow all] }`,
      /f\.yaml:6:18: exit\.policy\[0\]: expected an exit rule .*, found "allow all": expected "accept" or "reject"/,
    ],
    [
      'node',
      `${NODE.replace(', exit]', ']')}exit: {}`,
      /f\.yaml:6:7: exit: expected no exit policy without the role exit, found one/,
    ],
    [
      'node',
      `${NODE}exit: { policy: [reject 0.0.0.0/0] }`,
      /f\.yaml:6:17: exit\.policy: expected a rule that accepts something/,
    ],
    ['node', NODE.replace('http://', 'https://'), /f\.yaml:5:19: directory\.url: expected a URL such as/],
    ['node', NODE.replace(KEY, KEY.slice(2)), /f\.yaml:5:51: directory\.key: expected 64 hex digits/],
    [
      'client',
      `${CLIENT}circuit: { hops: 6 }`,
      /f\.yaml:3:18: circuit\.hops: expected an integer 1\.\.5, found 6/,
    ],
    ['client', `${CLIENT}circuit: { hops: 2.5 }`, /circuit\.hops: expected an integer 1\.\.5, found 2\.5/],
    ['client', `${CLIENT}circuit: { hops: "3" }`, /circuit\.hops: expected an integer 1\.\.5, found "3"/],
    [
      'client',
      `${CLIENT}circuit: { hops: 3, path: [a, b] }`,
      /circuit\.path: expected as many names as hops \(3\), found 2/,
    ],
    [
      'client',
      `${CLIENT}circuit: { cipher: null-cipher }`,
      /circuit\.cipher: expected one of aes-256-gcm-16, .*, found "null-cipher"/,
    ],
    [
      'client',
      `${CLIENT}circuit: &x { hops: 3 }\nlog: *x`,
      /f\.yaml:4:6: log: expected a mapping of keys, found an alias/,
    ],
    [
      'directory',
      `${DIRECTORY}poolLength: 9`,
      /poolLength: expected a poolLength of at least the length of poolSpace \(10\), found 9/,
    ],
    [
      'directory',
      `${DIRECTORY}poolSpace: 8.0.0.0/8`,
      /poolSpace: expected a part of a private network \(RFC 1918, RFC 6598\), found "?8\.0\.0\.0\/8/,
    ],
    [
      'directory',
      `${DIRECTORY}poolSpace: 10.64.0.1/10`,
      /poolSpace: expected an IPv4 prefix such as 10\.64\.0\.0\/10, found "10\.64\.0\.1\/10"/,
    ],
    [
      'directory',
      DIRECTORY.replace('9030', '70000'),
      /listen\.port: expected an integer 1\.\.65535, found 70000/,
    ],
    ['directory', '', /f\.yaml:1:1: expected a mapping of keys, found an empty file/],
    ['directory', '- a', /f\.yaml:1:1: expected a mapping of keys, found a list/],
  ]
  for (const [kind, text, message] of rows) {
    const error = errorOf(kind, text)
    assert.equal(error.code, 'IPP_CONFIG_INVALID')
    assert.match(error.where, message)
    assert.ok(!error.line.includes('\n'), 'one line')
  }
})

test('all problems are told at once, up to five', () => {
  const error = errorOf('client', 'state: 1\nplane: maybe\nlog: { level: loud }\n')
  assert.equal(error.where.split('; ').length, 4)
  const many = errorOf('node', 'a: 1\nb: 2\nc: 3\n')
  assert.match(many.where, /; and \d+ more$/)
})

test('YAML that is none', () => {
  for (const text of ['a: [', 'a: 1\na: 2\n', '\tb: 1', 'a: 1\n---\nb: 2\n']) {
    const error = errorOf('client', text)
    assert.equal(error.code, 'IPP_CONFIG_SYNTAX', text)
    assert.match(error.where, /^f\.yaml:\d+:\d+: /)
  }
})

test('an absent file, a directory instead of a file', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ippriv-'))
  try {
    for (const file of [join(directory, 'absent.yaml'), directory])
      await assert.rejects(
        loadConfig('node', file),
        (error: IpprivError) => error.code === 'IPP_CONFIG_UNREADABLE' && error.where.startsWith(file),
      )
  } finally {
    await rm(directory, { recursive: true })
  }
})

test('the samples of deploy/config are accepted', async () => {
  for (const kind of ['node', 'client', 'directory'] as const) {
    const file = new URL(`../../deploy/config/${kind}.yaml`, import.meta.url).pathname
    assert.equal((await loadConfig(kind, file)).kind, kind)
    assert.equal(parseConfig(kind, await readFile(file, 'utf8'), file).log.level, 'info')
  }
})

test('directory URLs', () => {
  assert.deepEqual(parseDirectoryUrl('http://198.18.50.1/'), {
    address: '198.18.50.1',
    port: 80,
    base: 'http://198.18.50.1:80',
  })
  for (const text of [
    'http://example.org:80',
    'http://198.18.50.1:0',
    'http://198.18.50.1:65536',
    'http://1.2.3.4/x',
    'http://u@1.2.3.4',
  ])
    assert.equal(parseDirectoryUrl(text), undefined, text)
})

/** TypeBox checks the same schemas by its own means: what it refuses our walk refuses too, and the reverse for what has no format. */
test('property: our validator and TypeBox agree', () => {
  const scalar = fc.oneof(
    fc.constantFrom(
      'alder',
      '198.18.10.1',
      'entry',
      'auto',
      'info',
      KEY,
      'http://1.2.3.4:5',
      '10.0.0.0/8',
      '',
      'x',
    ),
    fc.integer({ min: -1, max: 70_000 }),
    fc.boolean(),
    fc.constant(null),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
  )
  const value = fc.oneof(scalar, fc.array(scalar, { maxLength: 3 }))
  const keyed = (keys: readonly string[]) =>
    fc
      .array(fc.tuple(fc.constantFrom(...keys, 'unknown'), value), { maxLength: 6 })
      .map((entries) => Object.fromEntries(entries))
  const section = fc.oneof(
    keyed([
      'url',
      'key',
      'level',
      'format',
      'hops',
      'path',
      'cipher',
      'policy',
      'protect',
      'address',
      'port',
    ]),
    value,
  )
  const file = fc
    .array(
      fc.tuple(
        fc.constantFrom(
          'name',
          'address',
          'roles',
          'keys',
          'state',
          'control',
          'plane',
          'directory',
          'exit',
          'log',
          'circuit',
          'listen',
          'poolLength',
          'period',
        ),
        section,
      ),
      { maxLength: 9 },
    )
    .map((entries) => Object.fromEntries(entries))
  fc.assert(
    fc.property(
      fc.constantFrom('node', 'client', 'directory') as fc.Arbitrary<ConfigKind>,
      file,
      (kind, candidate) => {
        const lines = new LineCounter()
        const document = parseDocument(JSON.stringify(candidate), { lineCounter: lines })
        const problems = validate(document.contents, schemaOf(kind), lines)
        if (!Value.Check(SCHEMAS[kind], candidate))
          assert.notEqual(problems.length, 0, JSON.stringify(candidate))
        else for (const problem of problems) assert.match(problem.expected, /address|URL|prefix|rule/)
      },
    ),
    { numRuns: 500 },
  )
})
