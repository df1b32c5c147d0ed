/**
 * The AEADs of IKE and ESP (RFC 8221 has no others but AES-CCM): sizes and numbers, in one table.
 * AES-GCM: RFC 4106 (ESP), RFC 5282 (IKE). ChaCha20-Poly1305: RFC 7634.
 */
export const ESP_CIPHERS = {
  'aes-256-gcm-16': {
    transformId: 20,
    keyBits: 256,
    keyLength: 32,
    saltLength: 4,
    ivLength: 8,
    icvLength: 16,
  },
  'aes-128-gcm-16': {
    transformId: 20,
    keyBits: 128,
    keyLength: 16,
    saltLength: 4,
    ivLength: 8,
    icvLength: 16,
  },
  // RFC 7634 section 5: the key length attribute must not be sent.
  'chacha20-poly1305': {
    transformId: 28,
    keyBits: undefined,
    keyLength: 32,
    saltLength: 4,
    ivLength: 8,
    icvLength: 16,
  },
} as const

export type EspCipher = keyof typeof ESP_CIPHERS

/** All of them, in the order above. */
export const ESP_CIPHER_NAMES = Object.keys(ESP_CIPHERS) as readonly EspCipher[]

export const isEspCipher = (text: string): text is EspCipher => Object.hasOwn(ESP_CIPHERS, text)

/** Octets of keying material a cipher takes: key, then salt. */
export const keyingLength = (cipher: EspCipher): number =>
  ESP_CIPHERS[cipher].keyLength + ESP_CIPHERS[cipher].saltLength
