import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { IpprivError } from '#base/errors'
import type { NodeId } from '#base/ids'
import { unixTime } from '#base/time'
import { GuardFile } from '#daemon/guard-file'
import type { SampledGuard } from '#overlay/entry-guards'

const root = mkdtempSync(join(tmpdir(), 'ippriv-guards-'))
after(() => rmSync(root, { recursive: true, force: true }))

const guard = (digit: string, confirmed = false): SampledGuard => ({
  nodeId: digit.repeat(64) as NodeId,
  confirmed,
  expires: unixTime(1_800_000_000),
  ...(confirmed ? {} : { unlisted: unixTime(1_790_000_000) }),
})
const errors: IpprivError[] = []
const fileIn = (dir: string): GuardFile => new GuardFile(dir, (error) => errors.push(error))

test('guards come back as they were kept, readable for their owner only; the last word counts', async () => {
  const file = fileIn(root)
  assert.deepEqual(await file.read(), [])
  for (const digit of ['a', 'b', 'c']) file.keep([guard(digit, true), guard('d')])
  await file.done()
  assert.deepEqual(await fileIn(root).read(), [guard('c', true), guard('d')])
  assert.deepEqual(readdirSync(root), ['guards.json'])
  assert.equal(statSync(join(root, 'guards.json')).mode & 0o777, 0o600)
  assert.deepEqual(errors, [])
})

test('a file that is not sound is named, and none of it believed', async () => {
  const path = join(root, 'guards.json')
  const good = readFileSync(path, 'utf8')
  for (const text of [
    '',
    good.slice(0, -3),
    'null',
    '[]',
    '{"sampled":[{"nodeId":"../etc","confirmed":true,"expires":1}]}',
    JSON.stringify({ sampled: [{ ...guard('a'), expires: -1 }] }),
    JSON.stringify({ sampled: [{ ...guard('a'), unlisted: 'never' }] }),
    JSON.stringify({ sampled: [guard('a'), guard('a')] }),
    JSON.stringify({ sampled: Array.from({ length: 11 }, (_, i) => guard('0123456789abcdef'[i]!)) }),
  ]) {
    writeFileSync(path, text)
    errors.length = 0
    assert.deepEqual(await fileIn(root).read(), [], text)
    assert.deepEqual(
      errors.map(({ code }) => code),
      ['IPP_STATE_UNUSABLE'],
      text,
    )
  }
})

test('a directory that cannot be written is named, and costs nothing else', async () => {
  errors.length = 0
  const file = fileIn(join(root, 'missing'))
  file.keep([guard('a')])
  file.keep([guard('b')])
  await file.done()
  assert.equal(errors.length, 2)
  assert.equal(errors[0]!.code, 'IPP_STATE_UNUSABLE')
})
