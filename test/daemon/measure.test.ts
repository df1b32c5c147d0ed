/** `ippriv measure` with real daemons: a client on demand, circuits of two hops through every node, a signed report. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fromHex, utf8 } from '#base/bytes'
import { nodeCrypto } from '#crypto/node'
import { PROGRAM } from '#demo/daemons'
import { inNamespace } from '#demo/topology'
import { decodeMeasurement } from '#directory/measurement'
import { Lab, unavailable } from './lab.ts'

const missing = unavailable()
const lab = new Lab(['alder', 'birch', 'cedar'])

before(async () => {
  if (missing) return
  await lab.raise(3)
  lab.configure('client', { 'circuit.onDemand': true })
  await Promise.all([lab.startServer(), lab.startNetwork()])
  lab.start('client')
  await lab.status<{ readonly state: string }>('client', ({ state }) =>
    state === 'ready' ? undefined : state,
  )
})

after(() => lab.down())

test('every node is measured by what comes through it, and one that is gone is found to be', async (t) => {
  if (missing) return t.skip(missing)
  const keys = join(lab.out, 'measurer')
  const made = await lab.ippriv('client', 'keygen', 'measurer', '--dir', keys, '--json')
  assert.equal(made.code, 0, made.stderr)
  const { publicKey } = JSON.parse(made.stdout) as { publicKey: string }
  const out = join(lab.out, 'measurer.report')
  const measure = async () => {
    const { code, stderr } = await lab.commands.run(
      inNamespace(
        lab.host('client').namespace,
        PROGRAM,
        'measure',
        ...[
          ...['--socket', lab.socketOf('client'), '--key', join(keys, 'measurer.pem'), '--out', out],
          ...[
            '--url',
            `http://${lab.host('server').address}/file?octets=4294967296`,
            '--seconds',
            '2',
            '--json',
          ],
        ],
      ),
      { check: false, timeoutMs: 240_000 },
    )
    assert.equal(code, 0, stderr)
    const read = decodeMeasurement(utf8(readFileSync(out, 'utf8')), [fromHex(publicKey)], nodeCrypto)
    assert.ok(read.ok, read.ok ? '' : read.where)
    return [...read.value.figures.values()]
  }
  const all = await measure()
  assert.equal(all.length, 3)
  for (const figure of all) assert.ok(figure > 100, `${all.join()} kbit/s`)
  await lab.kill('cedar')
  const two = await measure()
  assert.equal(two.filter((figure) => figure === 0).length, 1, two.join())
  const { stdout } = await lab.circuits('list', '--json')
  assert.deepEqual(JSON.parse(stdout), [], 'nothing is left open')
})
