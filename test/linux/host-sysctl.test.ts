import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

const NAMESPACE = `ipp-sysctl-${process.pid}`
const DEVICE = 'overlay0'
const NAMES = [
  'net.ipv4.ip_forward',
  'net.ipv4.conf.all.send_redirects',
  `net.ipv4.conf.${DEVICE}.send_redirects`,
  `net.ipv4.conf.${DEVICE}.rp_filter`,
  'net.ipv4.conf.all.arp_ignore',
  'net.ipv4.conf.all.arp_announce',
]
const BEFORE = ['0', '1', '1', '1', '0', '0']
const DURING = ['1', '0', '0', '2', '1', '2']

const inside = (...args: string[]): string =>
  execFileSync('ip', ['netns', 'exec', NAMESPACE, ...args], { encoding: 'utf8' })
const values = (): string[] =>
  inside('sysctl', '-n', ...NAMES)
    .trim()
    .split('\n')

function start(stateDir: string): ChildProcess {
  const program = join(import.meta.dirname, 'sysctl-process.ts')
  const args = ['netns', 'exec', NAMESPACE, process.execPath, program, stateDir, DEVICE]
  return spawn('ip', args, { stdio: ['pipe', 'pipe', 'inherit'] })
}

async function says(child: ChildProcess, text: string): Promise<void> {
  const [chunk] = (await once(child.stdout!, 'data', { signal: AbortSignal.timeout(10_000) })) as [Buffer]
  assert.equal(String(chunk).trim(), text)
}

const skip = process.getuid?.() === 0 ? false : 'a network namespace needs root'

describe('kernel settings of a node', { skip, timeout: 60_000 }, () => {
  const stateDir = mkdtempSync(join(tmpdir(), 'ipp-sysctl-'))

  before(() => {
    execFileSync('ip', ['netns', 'add', NAMESPACE])
    execFileSync('ip', ['-n', NAMESPACE, 'tuntap', 'add', DEVICE, 'mode', 'tun'])
    inside('sysctl', '-qw', ...NAMES.map((name, i) => `${name}=${BEFORE[i]}`))
  })

  after(() => {
    execFileSync('ip', ['netns', 'del', NAMESPACE])
    rmSync(stateDir, { recursive: true, force: true })
  })

  test('are set, and put back on close', async () => {
    const child = start(stateDir)
    await says(child, 'opened')
    child.stdin!.write('go\n')
    await says(child, 'set')
    assert.deepEqual(values(), DURING)
    child.stdin!.write('go\n')
    assert.deepEqual(await once(child, 'exit'), [0, null])
    assert.deepEqual(values(), BEFORE)
    assert.equal(existsSync(join(stateDir, 'sysctl.json')), false)
  })

  test('are put back by the next start after a kill', async () => {
    const killed = start(stateDir)
    await says(killed, 'opened')
    killed.stdin!.write('go\n')
    await says(killed, 'set')
    killed.kill('SIGKILL')
    await once(killed, 'exit')
    assert.deepEqual(values(), DURING)
    const successor = start(stateDir)
    await says(successor, 'opened')
    assert.deepEqual(values(), BEFORE)
    successor.kill('SIGKILL')
    await once(successor, 'exit')
  })

  test('are not taken from a note of another boot, or one that is damaged', async () => {
    const note = join(stateDir, 'sysctl.json')
    const other = { boot: 'another', namespace: 'net:[1]', values: { 'net/ipv4/ip_forward': '1' } }
    for (const text of [JSON.stringify(other), '{"boot":', '[]', '']) {
      writeFileSync(note, text)
      assert.equal(readFileSync(note, 'utf8'), text)
      const child = start(stateDir)
      await says(child, 'opened')
      assert.deepEqual(values(), BEFORE)
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
  })
})
