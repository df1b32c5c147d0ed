/** Every primitive against published vectors, and the providers against each other on random input. */
import assert from 'node:assert/strict'
import { constants, generateKeyPairSync, sign } from 'node:crypto'
import { test } from 'node:test'
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js'
import { concat, fromHex, toHex, utf8 } from '#base/bytes'
import { nobleCrypto } from '#crypto/noble'
import { nodeCrypto } from '#crypto/node'
import { type Aead, type CryptoProvider, HASH_LENGTH } from '#crypto/provider'
import { readPublicKey } from '#crypto/public-key'
import { ESP_CIPHERS, type EspCipher } from '#crypto/suites'
import { nativeCrypto } from '#linux/native-crypto'
import { seededRng } from '../sim/random.ts'

const PROVIDERS: readonly CryptoProvider[] = [nodeCrypto, nobleCrypto, nativeCrypto()]
const CIPHERS = Object.keys(ESP_CIPHERS) as EspCipher[]
const rng = seededRng(7)

for (const crypto of PROVIDERS) {
  test(`${crypto.name}: X25519, RFC 7748 section 5.2`, () => {
    const scalar = fromHex('a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4')
    const u = fromHex('e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c')
    const expected = 'c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552'
    assert.equal(toHex(crypto.x25519Agree(scalar, u)!), expected)
  })

  test(`${crypto.name}: X25519 refuses wrong lengths and points of small order`, () => {
    const { privateKey } = crypto.x25519Generate()
    for (const length of [0, 31, 33, 64])
      assert.equal(crypto.x25519Agree(privateKey, new Uint8Array(length)), undefined)
    // RFC 7748 section 6.1; the points are those of https://cr.yp.to/ecdh.html#validate.
    for (const point of [
      '0000000000000000000000000000000000000000000000000000000000000000',
      '0100000000000000000000000000000000000000000000000000000000000000',
      'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
      '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
      'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    ])
      assert.equal(crypto.x25519Agree(privateKey, fromHex(point)), undefined, point)
  })

  test(`${crypto.name}: ML-KEM-768: sizes, and both sides get the same secret`, () => {
    const { privateKey, publicKey } = crypto.mlkem768Generate()
    const { ciphertext, sharedSecret } = crypto.mlkem768Encapsulate(publicKey)!
    const lengths = [privateKey, publicKey, ciphertext, sharedSecret].map(({ length }) => length)
    assert.deepEqual(lengths, [64, 1184, 1088, 32])
    assert.deepEqual(crypto.mlkem768Decapsulate(privateKey, ciphertext), sharedSecret)
    const again = crypto.mlkem768Encapsulate(publicKey)!
    assert.notDeepEqual(again.sharedSecret, sharedSecret)
    assert.notDeepEqual(crypto.mlkem768Generate().publicKey, publicKey)
  })

  test(`${crypto.name}: ML-KEM-768 refuses wrong lengths and public keys beyond the modulus`, () => {
    const { privateKey, publicKey } = crypto.mlkem768Generate()
    for (const length of [0, 32, 1183, 1185, 1568])
      assert.equal(crypto.mlkem768Encapsulate(new Uint8Array(length)), undefined)
    // FIPS 203 section 7.2: the first coefficient would be 4095.
    const beyond = publicKey.with(0, 0xff).with(1, publicKey[1]! | 0x0f)
    assert.equal(crypto.mlkem768Encapsulate(beyond), undefined)
    for (const length of [0, 32, 1087, 1089, 1568])
      assert.equal(crypto.mlkem768Decapsulate(privateKey, new Uint8Array(length)), undefined)
  })

  test(`${crypto.name}: Ed25519, RFC 8032 section 7.1 test 1`, () => {
    const seed = fromHex('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60')
    const publicKey = crypto.ed25519PublicKey(seed)
    assert.equal(toHex(publicKey), 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a')
    const signature = crypto.ed25519Sign(seed, new Uint8Array(0))
    assert.equal(
      toHex(signature),
      'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
    )
    assert.ok(crypto.ed25519Verify(publicKey, new Uint8Array(0), signature))
  })

  test(`${crypto.name}: Ed25519 refuses whatever is not a signature`, () => {
    const { privateKey, publicKey } = crypto.ed25519Generate()
    const message = utf8('octets')
    const signature = crypto.ed25519Sign(privateKey, message)
    assert.ok(crypto.ed25519Verify(publicKey, message, signature))
    assert.ok(!crypto.ed25519Verify(publicKey, utf8('other octets'), signature))
    assert.ok(!crypto.ed25519Verify(publicKey, message, signature.with(0, signature[0]! ^ 1)))
    for (const wrong of [new Uint8Array(0), signature.subarray(1), concat(signature, Uint8Array.of(0))])
      assert.ok(!crypto.ed25519Verify(publicKey, message, wrong))
    for (const wrong of [new Uint8Array(0), publicKey.subarray(1), new Uint8Array(32).fill(255)])
      assert.ok(!crypto.ed25519Verify(wrong, message, signature))
    // S = S + L is the same point, and must not be another signature (RFC 8032 section 5.1.7).
    assert.ok(!crypto.ed25519Verify(publicKey, message, malleated(signature)))
  })

  test(`${crypto.name}: P-256, RFC 5903 section 8.1`, () => {
    const i = fromHex('c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433')
    const gr = fromHex(
      'd12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf6356fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab',
    )
    const expected = 'd6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de'
    assert.equal(toHex(crypto.p256Agree(i, gr)!), expected)
  })

  test(`${crypto.name}: P-256 refuses wrong lengths and what is no point of the curve`, () => {
    const { privateKey, publicKey } = crypto.p256Generate()
    assert.deepEqual([privateKey.length, publicKey.length], [32, 64])
    assert.ok(crypto.p256Agree(privateKey, publicKey))
    for (const wrong of [
      ...[0, 32, 63, 65].map((length) => new Uint8Array(length)),
      new Uint8Array(64),
      new Uint8Array(64).fill(255),
      publicKey.with(63, publicKey[63]! ^ 1),
      concat(Uint8Array.of(4), publicKey),
    ])
      assert.equal(crypto.p256Agree(privateKey, wrong), undefined)
  })

  test(`${crypto.name}: ECDSA, RFC 6979 appendix A.2.5`, () => {
    const point = fromHex(
      '60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299',
    )
    const key = { kind: 'ecdsa', curve: 'p256', point } as const
    for (const [hash, signature] of [
      [
        'sha256',
        'efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8',
      ],
      [
        'sha512',
        '8496a60b5e9b47c825488827e0495b0e3fa109ec4568fd3f8d1097678eb97f002362ab1adbe2b8adf9cb9edab740ea6049c028114f2460f96554f61fae3302fe',
      ],
    ] as const) {
      assert.ok(crypto.ecdsaVerify(key, hash, utf8('sample'), fromHex(signature)))
      assert.ok(!crypto.ecdsaVerify(key, hash, utf8('Sample'), fromHex(signature)))
    }
  })

  test(`${crypto.name}: ECDSA refuses whatever is not a signature`, () => {
    const pair = crypto.p256Generate()
    const key = { kind: 'ecdsa', curve: 'p256', point: pair.publicKey } as const
    const message = utf8('octets')
    const signature = crypto.ecdsaSign(pair, 'sha384', message)
    const order = fromHex('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551')
    assert.ok(crypto.ecdsaVerify(key, 'sha384', message, signature))
    assert.ok(!crypto.ecdsaVerify(key, 'sha256', message, signature))
    for (const wrong of [
      new Uint8Array(0),
      new Uint8Array(64),
      new Uint8Array(64).fill(255),
      concat(order, signature.subarray(32)),
      concat(signature.subarray(0, 32), order),
      concat(signature.subarray(0, 32), new Uint8Array(32)),
      signature.subarray(1),
      concat(signature, Uint8Array.of(0)),
      signature.with(5, signature[5]! ^ 1),
    ])
      assert.ok(!crypto.ecdsaVerify(key, 'sha384', message, wrong), toHex(wrong))
    const nowhere = { ...key, point: pair.publicKey.with(0, pair.publicKey[0]! ^ 1) }
    assert.ok(!crypto.ecdsaVerify(nowhere, 'sha384', message, signature))
  })

  test(`${crypto.name}: RSASSA-PSS as OpenSSL signs it, and nothing else`, () => {
    for (const bits of [2048, 2049, 3072]) {
      const pair = generateKeyPairSync('rsa', { modulusLength: bits })
      const key = readPublicKey(new Uint8Array(pair.publicKey.export({ format: 'der', type: 'spki' })))
      assert.ok(key?.kind === 'rsa')
      for (const hash of ['sha256', 'sha384', 'sha512'] as const) {
        const padding = constants.RSA_PKCS1_PSS_PADDING
        const saltLength = HASH_LENGTH[hash]
        const signed = sign(hash, utf8('octets'), { key: pair.privateKey, padding, saltLength })
        const signature = new Uint8Array(signed)
        assert.ok(crypto.rsaPssVerify(key, hash, utf8('octets'), signature))
        assert.ok(!crypto.rsaPssVerify(key, hash, utf8('other'), signature))
        assert.ok(
          !crypto.rsaPssVerify(key, hash === 'sha256' ? 'sha512' : 'sha256', utf8('octets'), signature),
        )
        const salted = sign(hash, utf8('octets'), { key: pair.privateKey, padding, saltLength: 20 })
        // CVE-2017-11185: a value of 0, and of n.
        for (const wrong of [
          new Uint8Array(0),
          new Uint8Array(signature.length),
          key.modulus,
          signature.subarray(1),
          concat(Uint8Array.of(0), signature),
          signature.with(9, signature[9]! ^ 1),
          new Uint8Array(salted),
          new Uint8Array(sign(hash, utf8('octets'), pair.privateKey)),
        ])
          assert.ok(!crypto.rsaPssVerify(key, hash, utf8('octets'), wrong))
      }
    }
  })

  test(`${crypto.name}: HMAC-SHA-256, RFC 4231 section 4.3; SHA-1, FIPS 180`, () => {
    const mac = crypto.hmac('sha256', utf8('Jefe'), utf8('what do ya want for nothing?'))
    assert.equal(toHex(mac), '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843')
    assert.equal(toHex(crypto.hash('sha1', utf8('abc'))), 'a9993e364706816aba3e25717850c26c9cd0d89d')
  })

  test(`${crypto.name}: ChaCha20-Poly1305, RFC 8439 section 2.8.2`, () => {
    const text =
      "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
    const aead = crypto.aead(
      'chacha20-poly1305',
      Uint8Array.from({ length: 32 }, (_, i) => 0x80 + i),
    )
    const nonce = fromHex('070000004041424344454647')
    const associated = fromHex('50515253c0c1c2c3c4c5c6c7')
    const sealed = aead.seal(nonce, utf8(text), associated)
    assert.equal(toHex(sealed.subarray(0, 16)), 'd31a8d34648e60db7b86afbc53ef7ec2')
    assert.equal(toHex(sealed.subarray(-16)), '1ae10b594f09e26a7e902ecbd0600691')
    assert.deepEqual(aead.open(nonce, sealed, associated), utf8(text))
  })

  test(`${crypto.name}: AES-256-GCM, GCM specification test case 16`, () => {
    const key = fromHex('feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308')
    const plaintext = fromHex(
      'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39',
    )
    const associated = fromHex('feedfacedeadbeeffeedfacedeadbeefabaddad2')
    const sealed = crypto
      .aead('aes-256-gcm-16', key)
      .seal(fromHex('cafebabefacedbaddecaf888'), plaintext, associated)
    assert.equal(toHex(sealed.subarray(-16)), '76fc6ece0f4e1768cddf8853bb2d551b')
  })

  test(`${crypto.name}: an AEAD refuses every changed octet, short input and a wrong key length`, () => {
    for (const cipher of CIPHERS) {
      const { keyLength } = ESP_CIPHERS[cipher]
      const aead = crypto.aead(cipher, rng.bytes(keyLength))
      const nonce = rng.bytes(12)
      const sealed = aead.seal(nonce, utf8('secret'), utf8('header'))
      for (let i = 0; i < sealed.length; i++)
        assert.equal(aead.open(nonce, sealed.with(i, sealed[i]! ^ 0x40), utf8('header')), undefined)
      assert.equal(aead.open(nonce, sealed, utf8('Header')), undefined)
      for (let length = 0; length < 16; length++)
        assert.equal(aead.open(nonce, sealed.subarray(0, length), utf8('header')), undefined)
      assert.throws(() => crypto.aead(cipher, new Uint8Array(keyLength - 1)), RangeError)
    }
  })

  test(`${crypto.name}: an AEAD keeps its own copy of the key, and forgets it`, () => {
    const key = rng.bytes(32)
    const [nonce, nothing] = [rng.bytes(12), new Uint8Array(0)]
    const aead = crypto.aead('aes-256-gcm-16', key)
    const before = aead.seal(nonce, utf8('x'), nothing)
    key.fill(0)
    assert.deepEqual(aead.seal(nonce, utf8('x'), nothing), before)
    aead.destroy()
    assert.notDeepEqual(aead.seal(nonce, utf8('x'), nothing), before)
  })
}

test('HMAC of every length of key and data around the block and the shared buffer', () => {
  for (const hash of ['sha256', 'sha384', 'sha512'] as const)
    for (const keyLength of [0, 1, 63, 64, 65, 127, 128, 129, 300])
      for (const length of [0, 1, 1919, 1920, 1921, 1984, 1985, 4000, 4096, 4097]) {
        const [key, data] = [rng.bytes(keyLength), rng.bytes(length)]
        const lengths = `${hash}, ${keyLength} and ${length} octets`
        for (const { hmac } of [nodeCrypto, nativeCrypto()])
          assert.deepEqual(hmac(hash, key, data), nobleCrypto.hmac(hash, key, data), lengths)
      }
})

test('one half of a key exchange at once agrees with the other half', () => {
  for (const [one, other] of [
    [nodeCrypto, nobleCrypto],
    [nobleCrypto, nodeCrypto],
  ] as const) {
    const x = one.x25519Generate()
    const answer = other.x25519Answer(x.publicKey)!
    assert.deepEqual(one.x25519Agree(x.privateKey, answer.publicKey), answer.sharedSecret)
    assert.notDeepEqual(other.x25519Answer(x.publicKey)!.publicKey, answer.publicKey)
    assert.equal(other.x25519Answer(new Uint8Array(32)), undefined)
    const p = one.p256Generate()
    const point = other.p256Answer(p.publicKey)!
    assert.deepEqual(one.p256Agree(p.privateKey, point.publicKey), point.sharedSecret)
    assert.equal(other.p256Answer(new Uint8Array(64)), undefined)
  }
})

test('AEADs of every length around the shared memory, forged ones between', () => {
  for (const cipher of CIPHERS) {
    const key = rng.bytes(ESP_CIPHERS[cipher].keyLength)
    const [ours, theirs] = [nativeCrypto().aead(cipher, key), nobleCrypto.aead(cipher, key)]
    for (const length of [0, 1, 15, 16, 17, 4079, 4080, 4081, 4096, 4097, 9000])
      for (const associatedLength of [0, 1, 4096, 4097]) {
        const lengths = `${cipher}, ${length} and ${associatedLength} octets`
        const [nonce, data, associated] = [rng.bytes(12), rng.bytes(length), rng.bytes(associatedLength)]
        const sealed = theirs.seal(nonce, data, associated)
        assert.deepEqual(ours.seal(nonce, data, associated), sealed, lengths)
        const forged = sealed.with(length, sealed[length]! ^ 1)
        assert.equal(ours.open(nonce, forged, associated), undefined, lengths)
        assert.deepEqual(ours.open(nonce, sealed, associated), data, lengths)
      }
  }
})

test('all providers give the same octets', () => {
  for (let round = 0; round < 20; round++) {
    const [key, data] = [rng.bytes(1 + round * 9), rng.bytes(round * 37)]
    for (const hash of ['sha256', 'sha384', 'sha512'] as const) {
      assert.deepEqual(nodeCrypto.hmac(hash, key, data), nobleCrypto.hmac(hash, key, data))
      for (const each of [nodeCrypto, nativeCrypto()])
        assert.deepEqual(each.hash(hash, data), nobleCrypto.hash(hash, data))
    }
    for (const each of [nodeCrypto, nativeCrypto()])
      assert.deepEqual(each.hash('sha1', data), nobleCrypto.hash('sha1', data))

    const [ours, theirs] = [nodeCrypto.x25519Generate(), nobleCrypto.x25519Generate()]
    const secret = nodeCrypto.x25519Agree(ours.privateKey, theirs.publicKey)
    assert.ok(secret)
    assert.deepEqual(nobleCrypto.x25519Agree(ours.privateKey, theirs.publicKey), secret)
    assert.deepEqual(nobleCrypto.x25519Agree(theirs.privateKey, ours.publicKey), secret)

    const seed = rng.bytes(32)
    const publicKey = nodeCrypto.ed25519PublicKey(seed)
    assert.deepEqual(nobleCrypto.ed25519PublicKey(seed), publicKey)
    const signature = nodeCrypto.ed25519Sign(seed, data)
    assert.deepEqual(nobleCrypto.ed25519Sign(seed, data), signature)
    assert.ok(nobleCrypto.ed25519Verify(publicKey, data, signature))

    const [p, q] = [nodeCrypto.p256Generate(), nobleCrypto.p256Generate()]
    const x = nodeCrypto.p256Agree(p.privateKey, q.publicKey)
    assert.ok(x)
    assert.deepEqual(nobleCrypto.p256Agree(p.privateKey, q.publicKey), x)
    assert.deepEqual(nobleCrypto.p256Agree(q.privateKey, p.publicKey), x)
    for (const [signer, verifier] of [PROVIDERS, PROVIDERS.toReversed()] as [
      CryptoProvider,
      CryptoProvider,
    ][])
      for (const hash of ['sha256', 'sha384', 'sha512'] as const) {
        const key = { kind: 'ecdsa', curve: 'p256', point: p.publicKey } as const
        assert.ok(verifier.ecdsaVerify(key, hash, data, signer.ecdsaSign(p, hash, data)))
      }

    for (const cipher of CIPHERS) {
      const aeadKey = rng.bytes(ESP_CIPHERS[cipher].keyLength)
      const [nonce, associated] = [rng.bytes(12), rng.bytes(round)]
      const [one, other, third] = PROVIDERS.map((crypto) => crypto.aead(cipher, aeadKey)) as [
        Aead,
        Aead,
        Aead,
      ]
      const sealed = one.seal(nonce, data, associated)
      for (const each of [other, third]) assert.deepEqual(each.seal(nonce, data, associated), sealed)
      assert.deepEqual(other.open(nonce, sealed, associated), data)
      for (const each of [one, third]) assert.deepEqual(each.open(nonce, sealed, associated), data)
    }
  }
})

test('random octets are as many as asked for, and plain', () => {
  for (const crypto of PROVIDERS) {
    const [a, b] = [crypto.random(32), crypto.random(32)]
    assert.equal(a.length, 32)
    assert.notDeepEqual(a, b)
    assert.equal(Object.getPrototypeOf(a), Uint8Array.prototype)
  }
})

function malleated(signature: Uint8Array): Uint8Array {
  const order = 2n ** 252n + 27742317777372353535851937790883648493n
  let s = order
  for (let i = 63; i >= 32; i--) s += BigInt(signature[i]!) << BigInt(8 * (i - 32))
  return Uint8Array.from(signature, (octet, i) =>
    i < 32 ? octet : Number((s >> BigInt(8 * (i - 32))) & 255n),
  )
}

test('ML-KEM-768: a seed is the same key to both providers, whoever encapsulates', () => {
  for (let round = 0; round < 10; round++) {
    const seed = rng.bytes(64)
    const { publicKey } = ml_kem768.keygen(seed)
    for (const crypto of PROVIDERS) {
      const { ciphertext, sharedSecret } = crypto.mlkem768Encapsulate(publicKey)!
      for (const other of PROVIDERS)
        assert.deepEqual(other.mlkem768Decapsulate(seed, ciphertext), sharedSecret)
    }
  }
})

test('ML-KEM-768: both providers reject implicitly, and alike', () => {
  const { privateKey, publicKey } = nodeCrypto.mlkem768Generate()
  const { ciphertext, sharedSecret } = nobleCrypto.mlkem768Encapsulate(publicKey)!
  for (const at of [0, 500, 1087]) {
    const changed = ciphertext.with(at, ciphertext[at]! ^ 1)
    const secret = nodeCrypto.mlkem768Decapsulate(privateKey, changed)
    assert.notDeepEqual(secret, sharedSecret)
    assert.deepEqual(nobleCrypto.mlkem768Decapsulate(privateKey, changed), secret)
  }
})
