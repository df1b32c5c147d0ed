import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Sensitive } from '#base/sensitive'
import { createLog, type LogOptions } from '#observe/log'

function logged(options: LogOptions, write: (log: ReturnType<typeof createLog>) => void): string[] {
  const lines: string[] = []
  write(createLog(options, { write: (line: string) => void lines.push(line.trimEnd()) }))
  return lines
}

const CLIENT = '198.51.100.77'
const all = (log: ReturnType<typeof createLog>) => {
  for (const level of ['debug', 'info', 'warn', 'error'] as const) {
    log[level](
      { path: ['alder', 'birch'], client: CLIENT, circuit: 3, pool: '10.64.0.0/20' },
      `${level}: ${CLIENT} refused`,
    )
    log[level](`plain ${CLIENT}`)
    log[level](
      { detail: `from ${CLIENT}`, key: 'cafebabe', nested: { seed: 'cafebabe', remote: CLIENT } },
      'deep',
    )
    log[level]({ bytes: Uint8Array.of(1, 2), secretive: new Sensitive(CLIENT) }, 'wrapped')
    log[level](new Error(`cannot reach ${CLIENT}`))
  }
}

test('the promise: at info and above no client address, path or key, whoever forgot', () => {
  for (const format of ['json', 'text'] as const) {
    const text = logged({ level: 'info', format }, all).join('\n')
    assert.doesNotMatch(text, /198\.51\.100\.77|alder|birch|cafebabe/)
    assert.doesNotMatch(text, /debug/, 'nor anything of level debug')
    assert.match(text, /10\.64\.0\.0\/20/, 'the own pool is no secret')
    assert.match(text, /\[address\] refused/)
  }
})

test('at debug addresses and paths are shown, keys never', () => {
  const text = logged({ level: 'debug', format: 'json' }, all).join('\n')
  assert.match(text, /198\.51\.100\.77/)
  assert.match(text, /alder/)
  assert.doesNotMatch(text, /cafebabe/)
  assert.match(text, /\[redacted\]/)
})

test('json: one object per line; text: one line for people', () => {
  const write = (log: ReturnType<typeof createLog>) =>
    log.warn({ circuit: 3, hops: [1, 2] }, 'circuit is closed')
  const [json] = logged({ level: 'info', format: 'json' }, write)
  const { time, ...rest } = JSON.parse(json!) as Record<string, unknown>
  assert.match(String(time), /^\d{4}-\d\d-\d\dT/)
  assert.deepEqual(rest, { level: 'warn', circuit: 3, hops: [1, 2], msg: 'circuit is closed' })
  const [text] = logged({ level: 'info', format: 'text' }, write)
  assert.match(text!, /^\d\d:\d\d:\d\d\.\d{3} warn {2}circuit is closed {2}circuit=3 {2}hops=\[1,2\]$/)
})

test('printf arguments still work', () => {
  const [line] = logged({ level: 'info', format: 'json' }, (log) => log.info('%s has %d', 'pool', 3))
  assert.equal((JSON.parse(line!) as { msg: string }).msg, 'pool has 3')
})
