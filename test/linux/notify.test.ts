import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { IpprivError } from '#base/errors'
import { parseCapabilities } from '#linux/caps'
import { notifySupervisor } from '#linux/notify'

/** Node.js has no Unix datagram sockets: perl receives. */
const RECEIVER = `use Socket; $| = 1; socket(S, AF_UNIX, SOCK_DGRAM, 0); bind(S, pack_sockaddr_un($ARGV[0])) or die;
  print "up\\n"; alarm 10; for (1..2) { recv(S, my $m, 512, 0); print "$m\\n" }`

test('the supervisor hears READY and STOPPING, by file and by abstract name', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ippriv-notify-'))
  try {
    for (const name of [join(directory, 'notify'), `@ippriv-test-${process.pid}`]) {
      const address = name.startsWith('@') ? `\0${name.slice(1)}` : name
      const script = RECEIVER.replace(
        '$ARGV[0]',
        JSON.stringify(address).replace('\\u0000', '\\0').replace('@', '\\@'),
      )
      const receiver = spawn('perl', ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
      let heard = ''
      receiver.stdout.setEncoding('utf8').on('data', (text: string) => {
        heard += text
      })
      await once(receiver.stdout, 'data')
      await notifySupervisor('READY=1', name)
      await notifySupervisor('STOPPING=1', name)
      await once(receiver, 'close')
      assert.equal(heard, 'up\nREADY=1\nSTOPPING=1\n')
    }
  } finally {
    await rm(directory, { recursive: true })
  }
})

test('without a supervisor nothing happens; one that is gone is an error', async () => {
  await notifySupervisor('READY=1', undefined)
  await notifySupervisor('READY=1', '')
  await assert.rejects(notifySupervisor('READY=1', '/nonexistent/notify'), (error: IpprivError) =>
    /^IPP_HOST_/.test(error.code),
  )
  await assert.rejects(notifySupervisor('READY=1', `/${'x'.repeat(200)}`), RangeError)
})

test('capabilities of /proc/PID/status', () => {
  const status = (mask: string) => `Name:\tnode\nCapPrm:\t0000000000000000\nCapEff:\t${mask}\n`
  assert.deepEqual([...parseCapabilities(status('0000000000003000'))], ['CAP_NET_ADMIN', 'CAP_NET_RAW'])
  assert.deepEqual([...parseCapabilities(status('000001ffffffffff'))].length, 3)
  assert.deepEqual([...parseCapabilities(status('0000000000000400'))], ['CAP_NET_BIND_SERVICE'])
  assert.deepEqual([...parseCapabilities('')], [])
})
