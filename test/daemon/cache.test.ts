/** A node hands documents on to whoever comes through a telescope, and to nobody on the clear network. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { until } from '#demo/command'
import { Lab, unavailable } from './lab.ts'

const missing = unavailable()
const PATH = ['alder', 'birch', 'cedar'] as const
const lab = new Lab([...PATH, 'dogwood'])

before(async () => {
  if (missing) return
  await lab.raise(3)
  lab.configure('directory', { period: 40 })
  lab.configure('client', { 'circuit.path': [...PATH] })
  await Promise.all([lab.startServer(), lab.startNetwork()])
  lab.start('client')
  await lab.clientReady()
})

after(() => lab.down())

const ask = (name: string, from: string) => {
  const url = `http://${lab.host(name).address}:9031/v1/consensus`
  return lab.run(from, 'curl', '-sS', '--max-time', '4', url)
}

test('through a telescope, from a node that is not on the path', async (t) => {
  if (missing) return t.skip(missing)
  const { stdout } = await until('an answer through the telescope', 60_000, async () => {
    const answer = await ask('dogwood', 'client')
    return answer.code === 0 && answer.stdout.includes('"nodes":') ? answer : undefined
  })
  assert.ok(stdout.startsWith('{"version":1,'))
  assert.ok(stdout.includes('dogwood'))
})

test('not from the clear network, as long as nothing else is configured', async (t) => {
  if (missing) return t.skip(missing)
  const { code, stdout } = await ask('dogwood', 'server')
  assert.notEqual(code, 0)
  assert.equal(stdout, '')
})

test('a client whose document should be replaced asks a node first, through its circuit', async (t) => {
  if (missing) return t.skip(missing)
  type Status = { readonly cache: Readonly<Record<string, number>> }
  const asked = ({ cache }: Status): number => cache['consensus.unchanged'] ?? 0
  assert.equal(asked(await lab.status<Status>('dogwood', () => undefined)), 0, 'a fresh one is left alone')
  await lab.stop('directory')
  // Until the document is due, and the client looks again: that is within two minutes, while the document is valid.
  await until('the node is asked', 130_000, async () =>
    asked(await lab.status<Status>('dogwood', () => undefined)) > 0 ? true : undefined,
  )
})
