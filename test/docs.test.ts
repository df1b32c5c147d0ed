/** Documents that are made of code, or speak of it, agree with it. */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ERRORS } from '#base/errors'
import { explainConfig, explainErrors, jsonSchema } from '#config/explain'
import { parseConfig } from '#config/load'
import { explainInterface } from '#directory/interface'
import { GAUGES, REFUSALS, TALLIES } from '#ikev2/counters'
import { explainIke } from '#ikev2/explain'
import { STANDARDS } from '#ikev2/standards'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const read = (file: string): string => readFileSync(`${ROOT}/${file}`, 'utf8')

test('docs/config.md is what the schema says', () => {
  const samples = {
    node: read('deploy/config/node.yaml'),
    client: read('deploy/config/client.yaml'),
    directory: read('deploy/config/directory.yaml'),
  }
  assert.equal(read('docs/config.md'), explainConfig(samples), 'run: node src/config/write-docs.ts')
  const properties = (jsonSchema('client') as { properties: Record<string, unknown> }).properties
  assert.ok(Object.hasOwn(properties, 'circuit'))
})

test('docs/ikev2.md is what the tables of the engine say', () => {
  assert.equal(read('docs/ikev2.md'), explainIke(), 'run: node src/config/write-docs.ts')
})

test('every standard is cited where it is said to begin', () => {
  for (const { name, where } of STANDARDS.filter((standard) => standard.where !== ''))
    assert.ok(read(where).includes(name), `${where} says nothing of ${name}`)
})

test('docs/openapi.json is what the routes say', async () => {
  const text = await explainInterface()
  assert.equal(read('docs/openapi.json'), text, 'run: node src/config/write-docs.ts')
  const { paths } = JSON.parse(text) as { paths: Record<string, Record<string, Operation>> }
  assert.ok(Object.keys(paths).length >= 15)
  for (const [path, operations] of Object.entries(paths))
    for (const { summary, responses, parameters = [] } of Object.values(operations)) {
      assert.ok(summary !== undefined && Object.keys(responses).length > 0, path)
      const named = [...path.matchAll(/\{([a-z]+)\}/g)].map(([, name]) => name)
      assert.deepEqual(
        parameters.filter((one) => one.in === 'path').map(({ name }) => name),
        named,
        path,
      )
    }
})

interface Operation {
  readonly summary?: string
  readonly responses: object
  readonly parameters?: readonly { readonly name: string; readonly in: string }[]
}

test('docs/errors.md is what the table says', () => {
  assert.equal(read('docs/errors.md'), explainErrors(), 'run: node src/config/write-docs.ts')
})

test('every code is used somewhere, and every code used exists', () => {
  const used = new Set<string>()
  for (const file of globSync('src/**/*.ts', { cwd: ROOT })) {
    if (file === 'src/base/errors.ts') continue
    for (const [code] of read(file).matchAll(/\bIPP_[A-Z][A-Z_]*[A-Z]\b/g)) used.add(code)
  }
  const known = Object.keys(ERRORS)
  const groups = new Set(known.map(groupOf))
  const unknown = [...used].filter((code) => groups.has(groupOf(code)) && !known.includes(code))
  assert.deepEqual(unknown, [])
  assert.deepEqual(
    known.filter((code) => !used.has(code)),
    [],
  )
})

test('every counter of the IKEv2 engine is counted somewhere', () => {
  const files = globSync('src/ikev2/**/*.ts', { cwd: ROOT }).filter((file) => !file.endsWith('/counters.ts'))
  const source = files.map(read).join('\n')
  const named = (name: string): boolean => source.includes(`'${name}'`)
  assert.ok(!named('a name that nobody has'))
  assert.deepEqual(
    Object.keys({ ...REFUSALS, ...TALLIES, ...GAUGES }).filter((name) => !named(name)),
    [],
  )
})

/** `IPP_IKE` of `IPP_IKE_TIMEOUT`; other names with this beginning (of the environment) have other groups. */
const groupOf = (code: string): string => code.split('_').slice(0, 2).join('_')

test('systemd units start what there is, with the capabilities it needs and no more', () => {
  const needs = {
    node: ['CAP_NET_ADMIN', 'CAP_NET_BIND_SERVICE', 'CAP_NET_RAW'],
    client: ['CAP_NET_ADMIN', 'CAP_NET_BIND_SERVICE', 'CAP_NET_RAW'],
    directory: [],
  }
  for (const [role, capabilities] of Object.entries(needs)) {
    const unit = read(`deploy/systemd/ippriv-${role}.service`)
    const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1]
    assert.match(
      value('ExecStart') ?? '',
      new RegExp(`/bin/ippriv ${role} --config /etc/ippriv/${role}\\.yaml$`),
    )
    assert.equal(value('Type'), 'notify')
    assert.equal(value('NoNewPrivileges'), 'yes')
    assert.deepEqual((value('CapabilityBoundingSet') ?? '').split(' ').filter(Boolean).sort(), capabilities)
    assert.ok(!/\.\.\.|TODO/.test(unit))
    // The paths of the sample configuration are those that the unit lets the daemon write.
    const config = parseConfig(
      role as keyof typeof needs,
      read(`deploy/config/${role}.yaml`),
      `/etc/ippriv/${role}.yaml`,
    )
    assert.equal(config.state, `/var/lib/${value('StateDirectory')}`)
    assert.ok(config.control.startsWith(`/run/${value('RuntimeDirectory')}/`), config.control)
  }
})

test('the set-up script knows the Node.js that package.json pins', () => {
  const { dependencies } = JSON.parse(read('package.json')) as { dependencies: Record<string, string> }
  assert.equal(`v${dependencies.node}`, process.version)
})
