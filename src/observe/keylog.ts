/**
 * Key log for Wireshark: the keys of every SA, appended to the two tables of its profile directory
 * (`WIRESHARK_CONFIG_DIR`). Whoever reads them reads the traffic; only written when the configuration asks.
 *
 *     esp_sa                  "IPv4",source,destination,SPI,cipher,key,"NULL","",sequence number width,"0"
 *     ikev2_decryption_table  SPIi,SPIr,SK_ei,SK_er,cipher,,,integrity
 */
import { appendFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { toHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { formatSpi } from '#base/ids'
import type { EspCipher } from '#crypto/suites'
import type { IkeKeys } from '#ikev2/events'
import type { SaSpec } from '#telescope/plane'

export const ESP_TABLE = 'esp_sa'
export const IKE_TABLE = 'ikev2_decryption_table'

/** Names of Wireshark's tables. It decrypts ChaCha20-Poly1305 for ESP (from 4.6 on) and never for IKE. */
const ESP_NAMES: Readonly<Record<EspCipher, string>> = {
  'aes-256-gcm-16': 'AES-GCM with 16 octet ICV [RFC4106]',
  'aes-128-gcm-16': 'AES-GCM with 16 octet ICV [RFC4106]',
  'chacha20-poly1305': 'ChaCha20 with Poly1305 [RFC7634]',
}
const IKE_NAMES: Readonly<Partial<Record<EspCipher, string>>> = {
  'aes-256-gcm-16': 'AES-GCM-256 with 16 octet ICV [RFC5282]',
  'aes-128-gcm-16': 'AES-GCM-128 with 16 octet ICV [RFC5282]',
}

export class KeyLog {
  readonly #directory: string

  /** Creates the directory. @throws IpprivError IPP_STATE_UNUSABLE */
  constructor(directory: string) {
    this.#directory = directory
    attempt(directory, () => mkdirSync(directory, { recursive: true, mode: 0o700 }))
  }

  /** @throws IpprivError IPP_STATE_UNUSABLE */
  esp(sa: SaSpec): void {
    this.#append(ESP_TABLE, espLine(sa))
  }

  /** @throws IpprivError IPP_STATE_UNUSABLE */
  ike(keys: IkeKeys): void {
    const line = ikeLine(keys)
    if (line !== undefined) this.#append(IKE_TABLE, line)
  }

  #append(table: string, line: string): void {
    const file = join(this.#directory, table)
    attempt(file, () => appendFileSync(file, `${line}\n`, { mode: 0o600 }))
  }
}

/** One line of `esp_sa`, without the line feed. The addresses tell apart SPIs that two receivers chose alike. */
export function espLine(sa: SaSpec): string {
  const width = sa.esn ? '64-bit' : '32-bit'
  const { source, destination, spi, cipher, key } = sa
  return quoted(
    'IPv4',
    source,
    destination,
    formatSpi(spi),
    ESP_NAMES[cipher],
    `0x${toHex(key)}`,
    'NULL',
    '',
    width,
    '0',
  )
}

/** One line of `ikev2_decryption_table`; undefined for a cipher that Wireshark cannot decrypt. */
export function ikeLine(keys: IkeKeys): string | undefined {
  const name = IKE_NAMES[keys.cipher]
  if (name === undefined) return undefined
  const fields = [keys.spiInitiator, keys.spiResponder, keys.skEi, keys.skEr].map(toHex)
  return `${fields.join(',')},"${name}",,,"NONE [RFC4306]"`
}

const quoted = (...fields: readonly string[]): string => fields.map((field) => `"${field}"`).join(',')

function attempt(what: string, action: () => void): void {
  try {
    action()
  } catch (cause) {
    throw new IpprivError('IPP_STATE_UNUSABLE', `${what}: ${(cause as Error).message}`, { cause })
  }
}
