/** The key schedule against NIST's vectors and against traces of a stock daemon with all its secrets. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { concat, fromHex, toHex } from '#base/bytes'
import { nobleCrypto } from '#crypto/noble'
import { nodeCrypto } from '#crypto/node'
import type { HashName } from '#crypto/provider'
import type { IkeId } from '#ikev2/events'
import {
  childKeys,
  ikeSecrets,
  type Prf,
  prfOf,
  prfPlus,
  sharedKeyAuth,
  signedOctets,
  skeyseed,
  skeyseedFrom,
} from '#ikev2/keys'
import { load, mlkem, traces } from './traces.ts'

interface NistTest {
  readonly hash: 'SHA-256' | 'SHA-384' | 'SHA-512'
  readonly ni: string
  readonly nr: string
  readonly g_ir: string
  readonly g_ir_new: string
  readonly spi_i: string
  readonly spi_r: string
  readonly skeyseed: string
  readonly dkm: string
  readonly dkm_child: string
  readonly dkm_child_dh: string
  readonly skeyseed_rekey: string
}

test('NIST SP 800-135 IKEv2 KDF, 36 tests', () => {
  const { tests } = load<{ tests: NistTest[] }>('nist-ikev2-kdf.json')
  assert.equal(tests.length, 36)
  for (const each of tests) {
    const hash = each.hash.replace('-', '').toLowerCase() as HashName
    const prf = prfOf(nodeCrypto, hash)
    const [ni, nr, secret, fresh] = [each.ni, each.nr, each.g_ir, each.g_ir_new].map(fromHex) as Uint8Array[]
    const seed = skeyseed(prf, secret!, ni!, nr!)
    assert.equal(toHex(seed), each.skeyseed)
    const seedOfKeys = concat(ni!, nr!, fromHex(each.spi_i), fromHex(each.spi_r))
    const dkm = prfPlus(prf, seed, seedOfKeys, each.dkm.length / 2)
    assert.equal(toHex(dkm), each.dkm)
    const skD = dkm.subarray(0, seed.length)
    const child = fromHex(each.dkm_child).length
    assert.equal(toHex(prfPlus(prf, skD, concat(ni!, nr!), child)), each.dkm_child)
    assert.equal(toHex(prfPlus(prf, skD, concat(fresh!, ni!, nr!), child)), each.dkm_child_dh)
    assert.equal(toHex(skeyseedFrom(prf, skD, fresh!, ni!, nr!)), each.skeyseed_rekey)
  }
})

test('prf+ refuses more than 255 blocks', () => {
  const prf: Prf = prfOf(nodeCrypto, 'sha256')
  assert.equal(prfPlus(prf, new Uint8Array(32), new Uint8Array(1), 255 * 32).length, 255 * 32)
  assert.throws(() => prfPlus(prf, new Uint8Array(32), new Uint8Array(1), 255 * 32 + 1), RangeError)
})

for (const crypto of [nodeCrypto, nobleCrypto]) {
  const prf = prfOf(crypto, 'sha256')
  const lengths = { prf: 32, encryption: 36 }

  for (const { name, cipher, trace } of traces()) {
    test(`${crypto.name}: ${name}: keys of the IKE SA, AUTH of both sides, keys of the Child SAs`, () => {
      const { spi_i, spi_r, ni, nr } = trace.ike_sa_init
      const nonces = { ni: fromHex(ni), nr: fromHex(nr) }
      const first = trace.ike_sas[0]!
      const seed = skeyseed(prf, fromHex(first.g_ir), nonces.ni, nonces.nr)
      assert.equal(toHex(seed), first.skeyseed)
      const spis = { spiInitiator: fromHex(spi_i), spiResponder: fromHex(spi_r) }
      const secrets = ikeSecrets(prf, seed, { ...nonces, ...spis }, lengths)
      for (const [mine, theirs] of [
        [secrets.skD, first.sk_d],
        [secrets.skEi, first.sk_ei],
        [secrets.skEr, first.sk_er],
        [secrets.skPi, first.sk_pi],
        [secrets.skPr, first.sk_pr],
      ] as const)
        assert.equal(toHex(mine), theirs)

      const request = fromHex(trace.messages[0]!.hex)
      const response = fromHex(trace.messages[1]!.hex)
      const { idi, idr, authI, authR } = trace.identities
      const octetsI = signedOctets(prf, secrets.skPi, request, nonces.nr, idi)
      const octetsR = signedOctets(prf, secrets.skPr, response, nonces.ni, idr)
      assert.equal(toHex(octetsI), trace.auth.initiator_octets)
      assert.equal(toHex(octetsR), trace.auth.responder_octets)
      assert.equal(toHex(sharedKeyAuth(prf, fromHex(trace.psk), octetsI)), trace.auth.initiator_auth)
      assert.equal(toHex(authI), trace.auth.initiator_auth)
      // RFC 7427 section 3: length, AlgorithmIdentifier of Ed25519, signature.
      assert.equal(toHex(authR.subarray(0, 8)), '07300506032b6570')
      assert.ok(crypto.ed25519Verify(fromHex(trace.responder_public_key), octetsR, authR.subarray(8)))

      for (const child of trace.child_sas) {
        const bytes = fromHex(child.seed)
        // The rekeyed one has KE: g^ir (new) stands before the nonces.
        const at = bytes.length - 64
        const [kei, ker] = [bytes.subarray(at, at + 32), bytes.subarray(at + 32)]
        const keys = childKeys(prf, secrets.skD, cipher, kei, ker, at > 0 ? [bytes.subarray(0, at)] : [])
        assert.equal(toHex(keys.initiatorToResponder), child.key_i)
        assert.equal(toHex(keys.responderToInitiator), child.key_r)
      }
    })
  }

  test(`${crypto.name}: x25519-mlkem768: every value of both key exchanges, IntAuth and AUTH`, () => {
    const { spi_i, spi_r, values, psk } = mlkem()
    const cursor = values[Symbol.iterator]()
    const take = (label: string): Uint8Array => {
      const [name, hex] = cursor.next().value as [string, string]
      assert.equal(name, label)
      return fromHex(hex)
    }
    const spis = { spiInitiator: fromHex(spi_i), spiResponder: fromHex(spi_r) }
    let skD: Uint8Array | undefined
    const keySchedule = (): { skPi: Uint8Array; skPr: Uint8Array } => {
      const secret = take('key exchange secret')
      const additional = take('additional key exchange secret')
      const nonces = take('nonces')
      const [ni, nr] = [nonces.subarray(0, 32), nonces.subarray(32)]
      const seed =
        skD === undefined
          ? skeyseed(prf, secret, ni, nr)
          : skeyseedFrom(prf, skD, secret, ni, nr, additional.length > 0 ? [additional] : [])
      assert.deepEqual(seed, take('SKEYSEED'))
      // The last IKE SA of the trace is a rekeyed one, whose SPIs the trace does not list.
      if (additional.length > 0) return { skPi: seed, skPr: seed }
      const secrets = ikeSecrets(prf, seed, { ni, nr, ...spis }, lengths)
      assert.deepEqual(secrets.skD, take('Sk_d secret'))
      assert.deepEqual(secrets.skEi, take('Sk_ei secret'))
      assert.deepEqual(secrets.skEr, take('Sk_er secret'))
      assert.deepEqual(secrets.skPi, take('Sk_pi secret'))
      assert.deepEqual(secrets.skPr, take('Sk_pr secret'))
      skD = secrets.skD
      return secrets
    }
    const intAuth = (skP: Uint8Array): Uint8Array => {
      const before = take('IntAuth_N-1')
      const data = take('IntAuth_A|P')
      assert.deepEqual(take('SK_p'), skP)
      const value = prf(skP, concat(before, data))
      assert.deepEqual(value, take('IntAuth_N = prf(Sk_px, data)'))
      return value
    }
    const initial = keySchedule()
    const [intI, intR] = [intAuth(initial.skPi), intAuth(initial.skPr)]
    const { skPi, skPr } = keySchedule()
    // RFC 9242 section 3.3.2: IntAuth of both sides, then the message ID of IKE_AUTH.
    const suffix = concat(intI, intR, Uint8Array.of(0, 0, 0, 2))
    const { messages } = mlkem()
    const [ni, nr] = [fromHex(values[2]![1]).subarray(0, 32), fromHex(values[2]![1]).subarray(32)]
    const octets = (skP: Uint8Array, message: Uint8Array, nonce: Uint8Array): Uint8Array => {
      const wire = take("IDx'")
      const id: IkeId = { type: wire[0]!, data: wire.subarray(4) }
      assert.deepEqual(take('SK_p'), skP)
      const made = signedOctets(prf, skP, message, nonce, id, suffix)
      assert.deepEqual(made, take("octets = message + nonce + prf(Sk_px, IDx') + IntAuth"))
      return made
    }
    const octetsI = octets(skPi, fromHex(messages[0]!.hex), nr)
    assert.deepEqual(take('secret'), fromHex(psk))
    take('prf(secret, keypad)')
    assert.deepEqual(
      sharedKeyAuth(prf, fromHex(psk), octetsI),
      take('AUTH = prf(prf(secret, keypad), octets)'),
    )
    octets(skPr, fromHex(messages[1]!.hex), ni)

    const child = (secrets: readonly Uint8Array[]): void => {
      const seed = take('seed')
      const at = secrets[0]?.length ?? 0
      const [kei, ker] = [seed.subarray(at, at + 32), seed.subarray(at + 32, at + 64)]
      const keys = childKeys(prf, skD!, 'aes-256-gcm-16', kei, ker, secrets)
      assert.deepEqual(keys.initiatorToResponder, take('encryption initiator key'))
      assert.deepEqual(keys.responderToInitiator, take('encryption responder key'))
      assert.equal(cursor.next().value![0], 'child SA spi_in/spi_out at initiator')
    }
    child([])
    child([take('key exchange secret'), take('additional key exchange secret')])
    keySchedule()
  })
}
