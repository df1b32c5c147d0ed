/**
 * The key schedule (RFC 7296 sections 2.13 to 2.18), as functions of their inputs.
 *
 *     SKEYSEED = prf(Ni | Nr, g^ir)
 *     {SK_d | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr)
 *     KEYMAT   = prf+(SK_d, [g^ir (new) |] Ni | Nr)
 *
 * With an AEAD there are no SK_a keys (RFC 5282 section 7).
 */
import { concat, utf8, wipe } from '#base/bytes'
import type { CryptoProvider, HashName } from '#crypto/provider'
import { type EspCipher, keyingLength } from '#crypto/suites'
import type { IkeId } from '#ikev2/events'
import { encodeId } from '#ikev2/message/payload'

/** A pseudo-random function (RFC 4868): keyed with its first argument. */
export type Prf = (key: Uint8Array, data: Uint8Array) => Uint8Array

export const prfOf =
  (crypto: CryptoProvider, hash: HashName): Prf =>
  (key, data) =>
    crypto.hmac(hash, key, data)

/** prf+ of RFC 7296 section 2.13: T1 | T2 | ..., Tn = prf(K, Tn-1 | S | n). At most 255 blocks. */
export function prfPlus(prf: Prf, key: Uint8Array, seed: Uint8Array, length: number): Uint8Array {
  const out = new Uint8Array(length)
  let block = prf(key, concat(seed, FIRST))
  // Every other block has its input in the same place.
  const input = concat(block, seed, FIRST)
  for (let n = 1, at = 0; ; ) {
    // A short view would move its octets out of the heap first: they are copied one by one.
    for (let i = 0; i < block.length && at < length; i++) out[at++] = block[i]!
    if (at === length) break
    if (++n > 255) throw new RangeError(`prf+ cannot give ${length} octets`)
    input.set(block)
    input[input.length - 1] = n
    wipe(block)
    block = prf(key, input)
  }
  wipe(block, input)
  return out
}

const FIRST = Uint8Array.of(1)

/** SKEYSEED of a new IKE SA. */
export function skeyseed(prf: Prf, sharedSecret: Uint8Array, ni: Uint8Array, nr: Uint8Array): Uint8Array {
  return prf(concat(ni, nr), sharedSecret)
}

/**
 * SKEYSEED derived from the keys before it: an IKE SA rekey (RFC 7296 section 2.18), and each additional key
 * exchange (RFC 9370 section 2.2.2). `additional` are the shared secrets of follow-up key exchanges.
 */
export function skeyseedFrom(
  prf: Prf,
  skD: Uint8Array,
  sharedSecret: Uint8Array,
  ni: Uint8Array,
  nr: Uint8Array,
  additional: readonly Uint8Array[] = [],
): Uint8Array {
  return prf(skD, concat(sharedSecret, ni, nr, ...additional))
}

/** SKEYSEED of a resumed IKE SA (RFC 5723 section 5.1): no key exchange, so it is as secret as the SK_d of the old one. */
export function skeyseedResumed(prf: Prf, skD: Uint8Array, ni: Uint8Array, nr: Uint8Array): Uint8Array {
  return prf(skD, concat(RESUMPTION, ni, nr))
}

export interface IkeSecrets {
  readonly skD: Uint8Array
  /** Key and salt. */
  readonly skEi: Uint8Array
  readonly skEr: Uint8Array
  readonly skPi: Uint8Array
  readonly skPr: Uint8Array
}

/** In octets. `prf` is the preferred key length of the PRF: its output size. */
export interface KeyLengths {
  readonly prf: number
  readonly encryption: number
}

/** The keys of a new IKE SA. Wipes the shared secret. */
export function firstSecrets(
  prf: Prf,
  sharedSecret: Uint8Array,
  context: KeyContext,
  lengths: KeyLengths,
): IkeSecrets {
  const seed = skeyseed(prf, sharedSecret, context.ni, context.nr)
  const secrets = ikeSecrets(prf, seed, context, lengths)
  wipe(sharedSecret, seed)
  return secrets
}

interface KeyContext {
  readonly ni: Uint8Array
  readonly nr: Uint8Array
  readonly spiInitiator: Uint8Array
  readonly spiResponder: Uint8Array
}

/** The five keys of an IKE SA. */
export function ikeSecrets(prf: Prf, seed: Uint8Array, context: KeyContext, lengths: KeyLengths): IkeSecrets {
  const { ni, nr, spiInitiator, spiResponder } = context
  const sizes = [lengths.prf, lengths.encryption, lengths.encryption, lengths.prf, lengths.prf]
  const total = sizes.reduce((sum, size) => sum + size)
  const stream = prfPlus(prf, seed, concat(ni, nr, spiInitiator, spiResponder), total)
  let at = 0
  const [skD, skEi, skEr, skPi, skPr] = sizes.map((size) => {
    at += size
    return stream.slice(at - size, at)
  })
  wipe(stream)
  return { skD: skD!, skEi: skEi!, skEr: skEr!, skPi: skPi!, skPr: skPr! }
}

/** Forgets what only establishing needs; SK_d lives on in the channel. */
export function wipeSecrets(secrets: IkeSecrets): void {
  wipe(secrets.skEi, secrets.skEr, secrets.skPi, secrets.skPr)
}

export interface ChildKeys {
  /** Key and salt of the SA from the initiator of the exchange to its responder, and back. */
  readonly initiatorToResponder: Uint8Array
  readonly responderToInitiator: Uint8Array
}

/** Keys of a Child SA (RFC 7296 section 2.17). `sharedSecrets` come from CREATE_CHILD_SA with KE. */
export function childKeys(
  prf: Prf,
  skD: Uint8Array,
  cipher: EspCipher,
  ni: Uint8Array,
  nr: Uint8Array,
  sharedSecrets: readonly Uint8Array[] = [],
): ChildKeys {
  const length = keyingLength(cipher)
  // RFC 9370 section 2.2.4: the first secret stands before the nonces, those of IKE_FOLLOWUP_KE behind them.
  const [first = new Uint8Array(0), ...additional] = sharedSecrets
  const stream = prfPlus(prf, skD, concat(first, ni, nr, ...additional), 2 * length)
  const keys = { initiatorToResponder: stream.slice(0, length), responderToInitiator: stream.slice(length) }
  wipe(stream)
  return keys
}

/**
 * What AUTH covers (RFC 7296 section 2.15): the first message of the prover (or both: transcript.ts), the other side's
 * nonce, and the prover's identity under its SK_p. `intAuth` is appended after IKE_INTERMEDIATE (RFC 9242 section 3.3.2).
 */
export function signedOctets(
  prf: Prf,
  skP: Uint8Array,
  message: Uint8Array,
  peerNonce: Uint8Array,
  id: IkeId,
  intAuth: Uint8Array = new Uint8Array(0),
): Uint8Array {
  return concat(message, peerNonce, prf(skP, encodeId(id)), intAuth)
}

/** AUTH of a shared key; for NULL authentication the key is SK_p itself (RFC 7619 section 2.1). */
export function sharedKeyAuth(prf: Prf, key: Uint8Array, octets: Uint8Array): Uint8Array {
  const padded = prf(key, KEY_PAD)
  const auth = prf(padded, octets)
  wipe(padded)
  return auth
}

const KEY_PAD = utf8('Key Pad for IKEv2')
const RESUMPTION = utf8('Resumption')
