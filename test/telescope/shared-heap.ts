/** A process of shared.test.ts: prints how many octets of the heap a sealed layer takes, with a counter of its own and a shared one. */
import { SEAL_HEADROOM, type SealState, sealLayer } from '#telescope/seal'
import { SharedCounter, sharedState } from '#telescope/shared'

const TIMES = 200_000
const nonce = new Uint8Array(12)
const associated = new Uint8Array(12)
const cipher = { seal: () => true, open: () => true, destroy: () => undefined }
const driver = { name: 'none', nonce, associated, create: () => cipher }
const bytes = new Uint8Array(256)

const sealing = (counter?: SharedCounter): SealState => ({
  spi: 0x1234,
  esn: true,
  salt: new Uint8Array(4),
  cipher,
  driver,
  sequence: 0x1_0000_0000,
  ...(counter && { counter }),
})

function octetsPerLayer(sa: SealState): number {
  // The compiler's own are over when it has seen enough.
  for (let i = 0; i < TIMES; i++) sealLayer(sa, bytes, SEAL_HEADROOM, 100)
  ;(globalThis as { gc?: () => void }).gc!()
  const before = process.memoryUsage().heapUsed
  for (let i = 0; i < TIMES; i++) sealLayer(sa, bytes, SEAL_HEADROOM, 100)
  return (process.memoryUsage().heapUsed - before) / TIMES
}

const memory = sharedState(32)
new Int32Array(memory)[1] = 5
const shared = octetsPerLayer(sealing(new SharedCounter(memory)))
const alone = octetsPerLayer(sealing())
process.stdout.write(JSON.stringify({ alone, shared }))
