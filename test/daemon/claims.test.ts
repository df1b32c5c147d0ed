import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { createFamilyKey } from '#config/keys'
import { claimsOf } from '#daemon/claims'
import { isMember } from '#directory/family'
import { crypto, describe, keyPair } from '../directory/network.ts'

const folder = mkdtempSync(join(tmpdir(), 'ippriv-claims-'))
after(() => rmSync(folder, { recursive: true, force: true }))

test('nodes with one family file are of one family, and say how much they want to carry', async () => {
  const { publicKey } = await createFamilyKey(folder)
  const family = join(folder, 'family.pem')
  assert.deepEqual(await claimsOf({ bandwidth: undefined, family: undefined }, publicKey, crypto), {})
  for (const name of ['alder', 'birch']) {
    const identity = keyPair(name).publicKey
    const claims = await claimsOf({ bandwidth: 5000, family }, identity, crypto)
    assert.deepEqual(claims.family!.key, publicKey)
    assert.ok(isMember(identity, claims.family!, crypto))
    assert.ok(!isMember(keyPair('cedar').publicKey, claims.family!, crypto))
    assert.deepEqual(describe(name, claims).descriptor.declared, 5000)
  }
  const missing = { bandwidth: undefined, family: join(folder, 'none.pem') }
  await assert.rejects(claimsOf(missing, publicKey, crypto), { code: 'IPP_KEY_UNREADABLE' })
})
