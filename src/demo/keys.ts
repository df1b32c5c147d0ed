import { fromHex } from '#base/bytes'
import type { Ip } from '#base/ip'
import type { EspCipher } from '#crypto/suites'

/** An ESP key of a key log, as Wireshark's table `esp_sa` has it. */
export interface EspKey {
  readonly spi: number
  /** Undefined where the log has a `*`. */
  readonly source: Ip | undefined
  readonly destination: Ip | undefined
  readonly cipher: EspCipher
  readonly key: Uint8Array
  /** The 4 octets behind the key (RFC 4106 section 8.1, RFC 7634 section 2). */
  readonly salt: Uint8Array
  /** Extended (64-bit) sequence numbers. */
  readonly esn: boolean
}

/** The ESP keys of one party. SPIs are chosen by receivers, so two SAs may share one. */
export class KeyRing {
  readonly #bySpi = new Map<number, EspKey[]>()

  constructor(keys: Iterable<EspKey>) {
    for (const key of keys) this.#bySpi.set(key.spi, [...(this.#bySpi.get(key.spi) ?? []), key])
  }

  find(spi: number, source: Ip, destination: Ip): readonly EspKey[] {
    return (this.#bySpi.get(spi) ?? []).filter(
      (key) => (key.source ?? source) === source && (key.destination ?? destination) === destination,
    )
  }

  get size(): number {
    let size = 0
    for (const keys of this.#bySpi.values()) size += keys.length
    return size
  }
}

/**
 * Lines such as
 *
 *     "IPv4","*","*","0xbf0bc9fe","AES-GCM with 16 octet ICV [RFC4106]","0x<key and salt>","NULL","","32-bit","0"
 *
 * @throws RangeError naming the line that is none of these.
 */
export function parseEspSa(text: string): EspKey[] {
  const keys: EspKey[] = []
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue
    const fields = [...line.matchAll(/"([^"]*)"/g)].map((match) => match[1]!)
    const [family, source, destination, spi, algorithm, keying, , , width = '32-bit'] = fields
    const cipher = cipherOf(algorithm ?? '', (keying ?? '').length / 2 - 1)
    if (family !== 'IPv4' || cipher === undefined || !/^0x[0-9a-fA-F]{1,8}$/.test(spi ?? ''))
      throw new RangeError(`esp_sa line ${index + 1} is not an IPv4 SA with a cipher known here`)
    const octets = fromHex(keying!.slice(2))
    keys.push({
      spi: Number(spi),
      source: source === '*' ? undefined : (source as Ip),
      destination: destination === '*' ? undefined : (destination as Ip),
      cipher,
      key: octets.subarray(0, -4),
      salt: octets.subarray(-4),
      esn: width.startsWith('64'),
    })
  }
  return keys
}

function cipherOf(algorithm: string, octets: number): EspCipher | undefined {
  if (algorithm.startsWith('AES-GCM with 16')) {
    if (octets === 36) return 'aes-256-gcm-16'
    if (octets === 20) return 'aes-128-gcm-16'
  }
  return algorithm.startsWith('ChaCha20') && octets === 36 ? 'chacha20-poly1305' : undefined
}
