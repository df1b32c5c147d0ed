/** Recorded exchanges of a stock daemon with every secret: test/vectors/README.md says where they come from. */

import { readFileSync } from 'node:fs'
import { fromHex } from '#base/bytes'
import { nodeCrypto } from '#crypto/node'
import type { EspCipher } from '#crypto/suites'
import type { IkeId } from '#ikev2/events'
import { MessageKey } from '#ikev2/message/encrypted'
import { decodeHeader, HEADER_LENGTH, type ReceivedHeader } from '#ikev2/message/header'
import { decodePayloads, type Payload } from '#ikev2/message/payload'

export interface TraceMessage {
  readonly from: 'initiator' | 'responder'
  readonly hex: string
}

interface RawTrace {
  readonly ike_sa_init: {
    readonly spi_i: string
    readonly spi_r: string
    readonly ni: string
    readonly nr: string
  }
  readonly ike_sas: readonly {
    readonly g_ir: string
    readonly skeyseed: string
    readonly sk_d: string
    readonly sk_ei: string
    readonly sk_er: string
    readonly sk_pi: string
    readonly sk_pr: string
  }[]
  readonly auth: {
    readonly initiator_octets: string
    readonly initiator_auth: string
    readonly responder_octets: string
  }
  readonly child_sas: readonly { readonly seed: string; readonly key_i: string; readonly key_r: string }[]
  readonly psk: string
  readonly responder_public_key: string
  readonly messages: readonly TraceMessage[]
}

export interface Trace extends RawTrace {
  readonly identities: {
    readonly idi: IkeId
    readonly idr: IkeId
    readonly authI: Uint8Array
    readonly authR: Uint8Array
  }
}

export const load = <T>(name: string): T =>
  JSON.parse(readFileSync(new URL(`../vectors/ikev2/${name}`, import.meta.url), 'utf8')) as T

export function traces(): { readonly name: string; readonly cipher: EspCipher; readonly trace: Trace }[] {
  return (
    [
      ['aes256gcm', 'aes-256-gcm-16'],
      ['chacha20poly1305', 'chacha20-poly1305'],
    ] as const
  ).map(([name, cipher]) => {
    const raw = load<RawTrace>(`${name}.json`)
    const payloads = raw.messages
      .slice(2, 4)
      .flatMap((message) => openMessage(message, cipher, raw.ike_sas[0]!).payloads)
    const of = <K extends Payload['kind']>(kind: K): (Payload & { kind: K })[] =>
      payloads.filter((payload): payload is Payload & { kind: K } => payload.kind === kind)
    const [authI, authR] = of('AUTH').map(({ data }) => data)
    // The initiator names both identities, the responder its own.
    const identities = { idi: of('IDi')[0]!.id, idr: of('IDr').at(-1)!.id, authI: authI!, authR: authR! }
    return { name, cipher, trace: { ...raw, identities } }
  })
}

export const mlkem = (): {
  readonly spi_i: string
  readonly spi_r: string
  readonly psk: string
  readonly responder_public_key: string
  readonly values: readonly (readonly [label: string, hex: string])[]
  readonly messages: readonly TraceMessage[]
} => load('x25519-mlkem768.json')

export interface OpenMessage {
  readonly datagram: Uint8Array
  readonly header: ReceivedHeader
  readonly payloads: readonly Payload[]
  readonly key: MessageKey
  readonly iv: Uint8Array
}

/** Decrypts one message of a trace. @throws Error when the ICV is wrong */
export function openMessage(
  message: TraceMessage,
  cipher: EspCipher,
  keys: { readonly sk_ei: string; readonly sk_er: string },
): OpenMessage {
  const datagram = fromHex(message.hex)
  const header = decodeHeader(datagram)
  const [sk] = decodePayloads(header.firstPayload, datagram.subarray(HEADER_LENGTH), 'outer')
  if (sk?.kind !== 'SK') throw new Error('not an encrypted message')
  const key = new MessageKey(nodeCrypto, cipher, fromHex(header.fromInitiator ? keys.sk_ei : keys.sk_er))
  const plaintext = key.open(datagram, sk.data.length)
  if (plaintext === undefined) throw new Error('the ICV does not verify')
  return {
    datagram,
    header,
    payloads: decodePayloads(sk.inner, plaintext, 'inner'),
    key,
    iv: sk.data.subarray(0, 8),
  }
}
