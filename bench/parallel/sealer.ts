/**
 * A worker thread that seals packets and nothing else, to see what the processors themselves gain by working at once.
 * AES-CBC with HMAC-SHA-1, which is what the paper used, is here for the comparison only: no proposal has it.
 */
import { parentPort, workerData } from 'node:worker_threads'
import koffi from 'koffi'
import type { EspCipher } from '#crypto/suites'
import { ESP_CIPHERS } from '#crypto/suites'
import { Arena } from '#linux/ffi'
import { measuredPlacement } from '#linux/placement'

export type SealerCipher = EspCipher | 'aes-128-cbc-sha1'
export interface SealerData {
  readonly cipher: SealerCipher
  readonly length: number
  readonly ms: number
  /** How many are ready; all begin when that is `threads`. */
  readonly barrier: SharedArrayBuffer
  readonly threads: number
}

const { cipher, length, ms, barrier, threads } = workerData as SealerData
const memory = new Arena(8192)
const seal = cipher === 'aes-128-cbc-sha1' ? cbcSha1() : aead(cipher)
const CHUNK = 64

for (let i = 0; i < 2000; i++) seal(i)
const ready = new Int32Array(barrier)
Atomics.add(ready, 0, 1)
Atomics.notify(ready, 0)
for (let seen = Atomics.load(ready, 0); seen < threads; seen = Atomics.load(ready, 0))
  Atomics.wait(ready, 0, seen)
let sealed = 0
const end = performance.now() + ms
while (performance.now() < end) for (let i = 0; i < CHUNK; i++) seal(sealed++)
parentPort!.postMessage(sealed)

function aead(name: EspCipher): (i: number) => void {
  const driver = measuredPlacement(memory)
  const session = driver.create(name, new Uint8Array(ESP_CIPHERS[name].keyLength), 'seal')
  driver.nonce.fill(0)
  return (i) => {
    new DataView(driver.nonce.buffer, driver.nonce.byteOffset).setUint32(8, i)
    session.seal(memory.bytes, 0, length, 12)
  }
}

/** libcrypto, the way the AEADs are called: RFC 3602 and RFC 2404. */
function cbcSha1(): (i: number) => void {
  const libcrypto = koffi.load(null)
  const pointer = 'uintptr_t'
  const context = libcrypto.func('EVP_CIPHER_CTX_new', pointer, [])() as number
  const init = libcrypto.func('EVP_CipherInit_ex', 'int', [...Array(5).fill(pointer), 'int'])
  const update = libcrypto.func('EVP_CipherUpdate', 'int', [...Array(4).fill(pointer), 'int'])
  const noPadding = libcrypto.func('EVP_CIPHER_CTX_set_padding', 'int', [pointer, 'int'])
  const hmac = libcrypto.func('HMAC', pointer, [pointer, pointer, 'int', pointer, 'size_t', pointer, pointer])
  const aes = libcrypto.func('EVP_aes_128_cbc', pointer, [])() as number
  const sha1 = libcrypto.func('EVP_sha1', pointer, [])() as number
  const { address } = memory
  const [key, iv, outLength, tag] = [address + 4096, address + 4160, address + 4192, address + 4224]
  const whole = length & ~15
  if (init(context, aes, 0, key, iv, 1) !== 1 || noPadding(context, 0) !== 1) throw new Error('no AES-CBC')
  return (i) => {
    memory.view.setUint32(4160, i)
    if (init(context, 0, 0, 0, iv, -1) !== 1) throw new Error('AES-CBC refused its IV')
    if (update(context, address, outLength, address, whole) !== 1)
      throw new Error('AES-CBC refused to encrypt')
    hmac(sha1, key, 20, address, whole + 16, tag, outLength)
  }
}
