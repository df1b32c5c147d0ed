import assert from 'node:assert/strict'
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { IpprivError } from '#base/errors'
import {
  createAuthorityKey,
  createNodeKeys,
  createToken,
  ecdsaSpki,
  readAuthorityKey,
  readKeyFile,
  readNodeKeys,
  readStockKeys,
  readToken,
} from '#config/keys'
import { nodeCrypto } from '#crypto/node'
import { readPublicKey } from '#crypto/public-key'

let directory = ''
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'ippriv-keys-'))
})
after(() => rm(directory, { recursive: true }))

const code = (expected: string, where: RegExp) => (error: IpprivError) => {
  assert.equal(error.code, expected)
  assert.match(error.where, where)
  return true
}

test('node keys: written once, read back the same, only by their owner', async () => {
  const keys = join(directory, 'a', 'node')
  const made = await createNodeKeys(keys)
  assert.deepEqual(await readNodeKeys(keys), made)
  assert.equal(made.nodeId, createHash('sha256').update(made.identity.publicKey).digest('hex'))
  assert.notDeepEqual(made.identity.seed, made.ike.seed)
  for (const name of ['identity.pem', 'ike.pem', 'ecdsa.pem'])
    assert.equal((await stat(join(keys, name))).mode & 0o777, 0o600, name)
  await assert.rejects(createNodeKeys(keys), code('IPP_KEY_UNREADABLE', /identity\.pem exists already/))
  assert.deepEqual(await readNodeKeys(keys), made)
})

test('an ECDSA key beside Ed25519: it signs for its public key, and a node can do without', async () => {
  const keys = join(directory, 'ecdsa')
  const { ecdsa } = await createNodeKeys(keys)
  const words = new TextEncoder().encode('words')
  const pinned = readPublicKey(ecdsaSpki(ecdsa))
  assert.ok(pinned?.kind === 'ecdsa' && pinned.curve === 'p256')
  for (const hash of ['sha256', 'sha384', 'sha512'] as const)
    assert.ok(nodeCrypto.ecdsaVerify(pinned, hash, words, nodeCrypto.ecdsaSign(ecdsa, hash, words)))
  const file = join(keys, 'ecdsa.pem')
  await chmod(file, 0o640)
  await assert.rejects(readNodeKeys(keys), code('IPP_KEY_UNREADABLE', /ecdsa\.pem.*lets others read it/))
  await rm(file)
  assert.equal((await readNodeKeys(keys)).ecdsa, undefined)
  for (const wrong of [
    generateKeyPairSync('ec', { namedCurve: 'secp384r1' }),
    generateKeyPairSync('ed25519'),
    generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ]) {
    await writeFile(file, wrong.privateKey.export({ format: 'pem', type: 'pkcs8' }), { mode: 0o600 })
    await assert.rejects(
      readNodeKeys(keys),
      code('IPP_KEY_INVALID', /ecdsa\.pem: expected an ECDSA P-256 key/),
    )
  }
  await assert.rejects(createNodeKeys(keys), code('IPP_KEY_UNREADABLE', /exists already/))
})

test('a stock router: the key it was given, or the public key it has', async () => {
  const keys = join(directory, 'stock')
  const made = await createNodeKeys(keys)
  const own = await readStockKeys(keys, undefined)
  assert.deepEqual([own.nodeId, own.ikeKey], [made.nodeId, made.ike.publicKey])
  const file = join(directory, 'router.pem')
  const foreign = async (
    pair: { publicKey: KeyObject; privateKey: KeyObject },
    part: 'public' | 'private',
  ) => {
    const key = part === 'public' ? pair.publicKey : pair.privateKey
    await writeFile(file, key.export({ format: 'pem', type: part === 'public' ? 'spki' : 'pkcs8' }))
    return await readStockKeys(keys, file)
  }
  const ec = generateKeyPairSync('ec', { namedCurve: 'secp384r1' })
  const spki = ec.publicKey.export({ format: 'der', type: 'spki' })
  assert.deepEqual((await foreign(ec, 'public')).ikeKey, new Uint8Array(spki))
  const ed25519 = generateKeyPairSync('ed25519')
  assert.equal((await foreign(ed25519, 'public')).ikeKey.length, 32)
  await assert.rejects(foreign(ec, 'private'), code('IPP_KEY_INVALID', /router\.pem/))
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 })
  await assert.rejects(foreign(weak, 'public'), code('IPP_KEY_INVALID', /2048/))
  await assert.rejects(readStockKeys(keys, join(directory, 'none')), code('IPP_KEY_UNREADABLE', /none/))
})

test('the seed and the public key are those of the file', async () => {
  const keys = join(directory, 'authority')
  const made = await createAuthorityKey(keys)
  const pem = await readFile(join(keys, 'authority.pem'), 'utf8')
  assert.match(pem, /^-----BEGIN PRIVATE KEY-----/)
  const signature = sign(null, Buffer.from('words'), pem)
  const x = Buffer.from(made.publicKey).toString('base64url')
  const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
  assert.ok(verify(null, Buffer.from('words'), publicKey, signature))
  assert.equal(made.seed.length, 32)
  assert.deepEqual(await readAuthorityKey(keys), { key: made, certificate: undefined })
})

test('a key that others may read is refused', async () => {
  const keys = join(directory, 'open')
  await createAuthorityKey(keys)
  for (const mode of [0o640, 0o604, 0o666]) {
    await chmod(join(keys, 'authority.pem'), mode)
    await assert.rejects(readAuthorityKey(keys), code('IPP_KEY_UNREADABLE', /lets others read it/))
  }
})

test('no key, no PEM, no Ed25519', async () => {
  await assert.rejects(
    readKeyFile(join(directory, 'absent.pem')),
    code('IPP_KEY_UNREADABLE', /absent\.pem: ENOENT/),
  )
  const file = join(directory, 'bad.pem')
  await writeFile(file, 'hello', { mode: 0o600 })
  await assert.rejects(readKeyFile(file), code('IPP_KEY_INVALID', /no PKCS#8 PEM private key/))
  const { privateKey } = generateKeyPairSync('x25519')
  await writeFile(file, privateKey.export({ format: 'pem', type: 'pkcs8' }))
  await assert.rejects(readKeyFile(file), code('IPP_KEY_INVALID', /expected an Ed25519 key, found x25519/))
})

test('a token is read as it was made, by its owner only, and never overwritten', async () => {
  const token = await createToken(directory)
  const file = join(directory, 'operator.token')
  assert.equal(token.length, 32)
  assert.deepEqual(await readToken(file), token)
  await assert.rejects(createToken(directory), code('IPP_KEY_UNREADABLE', /exists already/))
  await chmod(file, 0o644)
  await assert.rejects(readToken(file), code('IPP_KEY_UNREADABLE', /lets others read it/))
  for (const text of ['', 'hello', '0'.repeat(63), '0'.repeat(66)]) {
    await writeFile(join(directory, 'bad.token'), text, { mode: 0o600 })
    await assert.rejects(readToken(join(directory, 'bad.token')), code('IPP_KEY_INVALID', /64 hex digits/))
  }
})
