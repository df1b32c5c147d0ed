import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fromHex } from '#base/bytes'
import type { IpprivError } from '#base/errors'
import type { IkeSaId, Spi } from '#base/ids'
import { ip } from '#base/ip'
import type { IkeKeys } from '#ikev2/events'
import { espLine, ikeLine, KeyLog } from '#observe/keylog'
import { reqId, type SaSpec } from '#telescope/plane'

// From a trace that Wireshark 4.0 decrypts (test/vectors/README.md, "key log").
const ESP_KEY = '2c28c499b0f6f40adc504f7e93226e2faa3d31591fcc315886cfa426e84203c29e307f00'
const ESP_LINE = `"IPv4","198.18.1.1","198.18.10.1","0xbf0bc9fe","AES-GCM with 16 octet ICV [RFC4106]","0x${ESP_KEY}","NULL","","32-bit","0"`
const IKE_LINE =
  '3b653be02f75cc34,4c70ed985f0971f3,8dde461270f443edf98d0dae029f0b7dbf1f72e890af9cb8125af344ded26fbc6ad1adb9,2f1e9b56a01cb12555fbcd9cda8b72ab2f6dde35e22ede65573e6161f8450fd37144b130,"AES-GCM-256 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"'

const sa: SaSpec = {
  source: ip('198.18.1.1'),
  destination: ip('198.18.10.1'),
  spi: 0xbf0bc9fe as Spi,
  flow: 'outbound',
  reqid: reqId(1),
  cipher: 'aes-256-gcm-16',
  key: fromHex(ESP_KEY),
  esn: false,
  replayWindow: 1024,
}
const endpoint = { address: ip('198.18.1.1'), port: 500 }
const [spiInitiator, spiResponder, skEi, skEr] = IKE_LINE.split(',').slice(0, 4).map(fromHex)
const keys: IkeKeys = {
  kind: 'keys',
  sa: 1 as IkeSaId,
  path: { local: endpoint, remote: endpoint },
  spiInitiator: spiInitiator!,
  spiResponder: spiResponder!,
  skEi: skEi!,
  skEr: skEr!,
  cipher: 'aes-256-gcm-16',
}

test('lines are exactly those of Wireshark', () => {
  assert.equal(espLine(sa), ESP_LINE)
  assert.equal(ikeLine(keys), IKE_LINE)
  assert.match(espLine({ ...sa, esn: true }), /"64-bit","0"$/)
  assert.match(espLine({ ...sa, cipher: 'chacha20-poly1305' }), /"ChaCha20 with Poly1305 \[RFC7634\]"/)
  assert.match(espLine({ ...sa, spi: 0x100 as Spi }), /"0x00000100"/)
  assert.match(ikeLine({ ...keys, cipher: 'aes-128-gcm-16' })!, /"AES-GCM-128 with 16 octet ICV \[RFC5282\]"/)
  assert.equal(ikeLine({ ...keys, cipher: 'chacha20-poly1305' }), undefined)
})

test('lines are appended to files that only their owner reads', async () => {
  const root = await mkdtemp(join(tmpdir(), 'ippriv-keylog-'))
  try {
    const directory = join(root, 'new', 'keys')
    for (const log of [new KeyLog(directory), new KeyLog(directory)]) {
      log.esp(sa)
      log.ike(keys)
      log.ike({ ...keys, cipher: 'chacha20-poly1305' })
    }
    assert.equal(await readFile(join(directory, 'esp_sa'), 'utf8'), `${ESP_LINE}\n${ESP_LINE}\n`)
    assert.equal(
      await readFile(join(directory, 'ikev2_decryption_table'), 'utf8'),
      `${IKE_LINE}\n${IKE_LINE}\n`,
    )
    assert.equal((await stat(join(directory, 'esp_sa'))).mode & 0o777, 0o600)
    assert.equal((await stat(directory)).mode & 0o777, 0o700)
    await writeFile(join(root, 'file'), '')
    assert.throws(
      () => new KeyLog(join(root, 'file')),
      (error: IpprivError) => error.code === 'IPP_STATE_UNUSABLE',
    )
  } finally {
    await rm(root, { recursive: true })
  }
})
