/**
 * The recorded hybrid exchange of a stock daemon, message by message through our own code: fragments put together,
 * keys changed by IKE_INTERMEDIATE, IntAuth from the octets on the wire, both proofs, both kinds of rekey.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { concat, fromHex, toHex } from '#base/bytes'
import type { IkeSaId } from '#base/ids'
import { instant } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { Association } from '#ikev2/association'
import { type Channel, openChannel } from '#ikev2/channel'
import type { IkeRole } from '#ikev2/events'
import { authenticatedOctets } from '#ikev2/exchange/intermediate'
import { childKeys, ikeSecrets, prfOf, sharedKeyAuth, signedOctets, skeyseedFrom } from '#ikev2/keys'
import { MessageKey } from '#ikev2/message/encrypted'
import { type Message, Reassembly } from '#ikev2/message/fragment'
import { decodeHeader, HEADER_LENGTH } from '#ikev2/message/header'
import { decodePayloads, type Payload } from '#ikev2/message/payload'
import { checkContents, find, need } from '#ikev2/message/registry'
import { EXCHANGE, HASH_ALGORITHM, NOTIFY, PROTOCOL } from '#ikev2/numbers'
import { type AuthContext, verifySignature } from '#ikev2/proof'
import { chooseIke } from '#ikev2/proposal'
import { CLIENT, NODE, pathBetween } from './pair.ts'
import { mlkem } from './traces.ts'

const { spi_i, spi_r, psk, responder_public_key, values, messages } = mlkem()
const datagrams = messages.map(({ hex }) => fromHex(hex))
/** The n-th value of a label, from 0. */
const value = (label: string, n = 0): Uint8Array => fromHex(values.filter(([each]) => each === label)[n]![1])
const clear = (index: number): Payload[] => {
  const datagram = datagrams[index]!
  return decodePayloads(decodeHeader(datagram).firstPayload, datagram.subarray(HEADER_LENGTH), 'trace')
}
const QUIET = { crypto: nodeCrypto, logKeys: undefined }
const prf = prfOf(nodeCrypto, 'sha256')

/** Opens the messages of the other side, in the order of the trace. */
class Side {
  channel: Channel
  auth: AuthContext
  readonly #association: Association
  readonly #reassembly = new Reassembly()

  constructor(role: IkeRole) {
    const spis = [fromHex(spi_i), fromHex(spi_r)] as const
    this.#association = new Association(1 as IkeSaId, pathBetween(CLIENT, NODE), ...spis, role)
    const { suite } = chooseIke(need(clear(0), 'SA').proposals, { hybrid: true })
    const opened = openChannel(QUIET, this.#association, datagrams[0]!, datagrams[1]!, {
      suite,
      ni: need(clear(0), 'Nonce').data,
      nr: need(clear(1), 'Nonce').data,
      sharedSecret: value('key exchange secret'),
      peerHashes: new Set([HASH_ALGORITHM.number.IDENTITY]),
      mayFragment: true,
      fullTranscript: false,
    })
    this.channel = opened.channel
    this.auth = opened.auth
  }

  /** The message that these datagrams are. */
  open(...indices: number[]): Message & { readonly payloads: Payload[] } {
    let message: Message | undefined
    for (const index of indices) {
      assert.equal(message, undefined)
      const datagram = datagrams[index]!
      const header = decodeHeader(datagram)
      const opened = this.channel.open(header, datagram)
      message = this.#reassembly.take(header.messageId, opened, new Uint8Array(0), instant(0))
    }
    assert.ok(message !== undefined, 'complete')
    return { ...message, payloads: decodePayloads(message.firstPayload, message.plaintext, 'trace') }
  }

  extend(transcript: { readonly initiator: Uint8Array; readonly responder: Uint8Array }): void {
    // The secret of ML-KEM: the trace lists the second key exchange like the first.
    const secret = value('key exchange secret', 1)
    const next = this.channel.extend(QUIET, this.#association, this.auth, secret, transcript)
    this.channel = next.channel
    this.auth = next.auth
  }
}

test('x25519-mlkem768: the whole trace', () => {
  const [initiator, responder] = [new Side('initiator'), new Side('responder')]

  assert.deepEqual(
    need(clear(1), 'SA')
      .proposals[0]!.transforms.map(({ type, id }) => [type, id])
      .sort(),
    [
      [1, 20],
      [2, 5],
      [4, 31],
      [6, 36],
    ],
  )

  // IKE_INTERMEDIATE: two fragments there, one message back. A|P is as if it had been one piece.
  const request = responder.open(2, 3)
  const response = initiator.open(4)
  checkContents(EXCHANGE.number.IKE_INTERMEDIATE, false, request.payloads)
  checkContents(EXCHANGE.number.IKE_INTERMEDIATE, true, response.payloads)
  const [ek, ct] = [need(request.payloads, 'KE'), need(response.payloads, 'KE')]
  assert.deepEqual([ek.group, ek.data.length, ct.group, ct.data.length], [36, 1184, 36, 1088])
  assert.ok(nodeCrypto.mlkem768Encapsulate(ek.data), 'a good key')
  const transcript = { initiator: authenticatedOctets(request), responder: authenticatedOctets(response) }
  assert.equal(toHex(transcript.initiator), toHex(value('IntAuth_A|P', 0)))
  assert.equal(toHex(transcript.responder), toHex(value('IntAuth_A|P', 1)))
  for (const side of [initiator, responder]) side.extend(transcript)
  const { secrets, intAuth } = responder.auth
  assert.deepEqual(secrets.skPi, value('Sk_pi secret', 1))
  assert.deepEqual(secrets.skPr, value('Sk_pr secret', 1))
  const ends = [value('IntAuth_N = prf(Sk_px, data)', 0), value('IntAuth_N = prf(Sk_px, data)', 1)]
  assert.deepEqual(intAuth, concat(...ends, Uint8Array.of(0, 0, 0, 2)))

  // IKE_AUTH under the new keys.
  const [authI, authR] = [responder.open(5).payloads, initiator.open(6).payloads]
  const { ni, nr } = responder.auth
  const idi = need(authI, 'IDi').id
  const octets = signedOctets(prf, secrets.skPi, datagrams[0]!, nr, idi, intAuth)
  assert.deepEqual(need(authI, 'AUTH').data, sharedKeyAuth(prf, fromHex(psk), octets))
  const key = fromHex(responder_public_key)
  const auth = need(authR, 'AUTH')
  verifySignature(nodeCrypto, initiator.auth, 'responder', need(authR, 'IDr').id, key, auth)
  const stripped: AuthContext = { ...initiator.auth, intAuth: new Uint8Array(0) }
  assert.throws(() => verifySignature(nodeCrypto, stripped, 'responder', need(authR, 'IDr').id, key, auth))
  const terms = {
    suite: { cipher: 'aes-256-gcm-16', esn: false },
    outboundSpi: 256,
    localSelectors: [],
    remoteSelectors: [],
  } as never
  const first = initiator.channel.childSa(true, 300 as never, terms, { ni, nr })
  assert.deepEqual(first.outboundKey, value('encryption initiator key', 0))
  assert.deepEqual(first.inboundKey, value('encryption responder key', 0))

  // A Child SA rekey with IKE_FOLLOWUP_KE.
  const [childI, childR] = [responder.open(7).payloads, initiator.open(8).payloads]
  assert.equal(need(childI, 'KE').group, 31)
  const nonces = [need(childI, 'Nonce').data, need(childR, 'Nonce').data] as const
  const [followI, followR] = [responder.open(9, 10).payloads, initiator.open(11).payloads]
  assert.deepEqual([need(followI, 'KE').data.length, need(followR, 'KE').data.length], [1184, 1088])
  const childSecrets = [value('key exchange secret', 2), value('additional key exchange secret', 2)]
  const keys = childKeys(prf, value('Sk_d secret', 1), 'aes-256-gcm-16', ...nonces, childSecrets)
  assert.deepEqual(keys.initiatorToResponder, value('encryption initiator key', 1))
  assert.deepEqual(keys.responderToInitiator, value('encryption responder key', 1))
  const [deletion, deleted] = [responder.open(12).payloads, initiator.open(13).payloads]
  assert.deepEqual([find(deletion, 'Delete')?.protocol, find(deleted, 'Delete')?.protocol], [3, 3])

  // An IKE SA rekey with IKE_FOLLOWUP_KE, and the end of both IKE SAs.
  const [ikeI, ikeR] = [responder.open(14).payloads, initiator.open(15).payloads]
  const [proposalI, proposalR] = [need(ikeI, 'SA').proposals[0]!, need(ikeR, 'SA').proposals[0]!]
  assert.equal(proposalR.protocol, PROTOCOL.number.IKE)
  const newNonces = { ni: need(ikeI, 'Nonce').data, nr: need(ikeR, 'Nonce').data }
  assert.equal(need(responder.open(16, 17).payloads, 'KE').group, 36)
  assert.equal(need(initiator.open(18).payloads, 'KE').group, 36)
  const seed = skeyseedFrom(
    prf,
    value('Sk_d secret', 1),
    value('key exchange secret', 3),
    newNonces.ni,
    newNonces.nr,
    [value('additional key exchange secret', 3)],
  )
  assert.deepEqual(seed, value('SKEYSEED', 2))
  const spis = { spiInitiator: proposalI.spi, spiResponder: proposalR.spi }
  const renewed = ikeSecrets(prf, seed, { ...newNonces, ...spis }, { prf: 32, encryption: 36 })
  assert.deepEqual(renewed.skD, value('Sk_d secret', 2))
  for (const index of [19, 20]) assert.doesNotThrow(() => (index === 19 ? responder : initiator).open(index))
  for (const [index, sk] of [
    [21, renewed.skEi],
    [22, renewed.skEr],
  ] as const) {
    const datagram = datagrams[index]!
    const [outer] = clear(index)
    assert.ok(outer?.kind === 'SK')
    const opened = new MessageKey(nodeCrypto, 'aes-256-gcm-16', sk).open(datagram, outer.data.length)
    assert.ok(opened, 'the new keys open it')
    const payloads = decodePayloads(outer.inner, opened, 'trace')
    assert.equal(
      payloads.some(({ kind }) => kind === 'Delete'),
      index === 21,
    )
  }
})

test('x25519-mlkem768: a stock daemon announces what we ask for', () => {
  for (const index of [0, 1]) {
    const types = clear(index).flatMap((payload) => (payload.kind === 'Notify' ? [payload.type] : []))
    assert.ok(types.includes(NOTIFY.number.INTERMEDIATE_EXCHANGE_SUPPORTED))
    assert.ok(types.includes(NOTIFY.number.IKEV2_FRAGMENTATION_SUPPORTED))
  }
})
