/**
 * Inputs that broke real daemons, and the test here that feeds each: a row without a test fails, and so does a test
 * that was renamed. Rows are in the order in which they were collected; the second column is part of a test's title
 * as its source has it, with `*` for what a loop fills in.
 */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

const CATALOGUE: readonly (readonly [input: string, ...tests: string[]])[] = [
  ['CVE-2014-9221 strongSwan: internal transform numbers', 'CVE-2014-9221: KE of group 1025'],
  [
    'CVE-2014-2338 strongSwan: rekey of an unauthenticated IKE SA',
    'CVE-2014-2338: a rekey of an IKE SA that is not',
  ],
  ['CVE-2026-78135 strongSwan: CREATE_CHILD_SA too early', 'CVE-2026-78135: CREATE_CHILD_SA'],
  [
    'CVE-2026-78133 strongSwan: collisions, delete during rekey',
    'CVE-2026-78133: rekey and delete of a Child SA at once',
    'a rekey meets the deletion of the same Child SA',
    'both close while rekeys of the IKE SA cross',
  ],
  [
    'CVE-2026-78134 strongSwan: a second identity',
    'CVE-2026-78134: two IDr',
    'CVE-2013-6467: IKE_AUTH with two *',
    'CVE-2015-4171: a second IKE_AUTH on an established IKE SA',
  ],
  [
    'CVE-2026-47895 strongSwan: empty identity',
    'CVE-2026-47895: empty identity that signs',
    'CVE-2026-47895: nothing',
  ],
  ['CVE-2026-78127 strongSwan: memory of rejects', 'CVE-2026-78127: a soak of rejects leaves nothing behind'],
  [
    'CVE-2015-3991 strongSwan: IKEv1 payloads',
    'CVE-2015-3991: a critical IKEv1 payload',
    'CVE-2015-3991: IKEv1 payloads that are not critical',
  ],
  [
    'CVE-2015-4171, CVE-2021-45079 strongSwan: another method, AUTH missing or early, EAP',
    'CVE-2021-45079: AUTH missing (EAP)',
    'CVE-2021-45079: an EAP payload',
    'CVE-2015-4171: a responder that must sign',
  ],
  ['CVE-2013-6075 strongSwan: a DN cut short', 'CVE-2013-6075: ID_DER_ASN1_DN cut short'],
  [
    'CVE-2018-16151, CVE-2018-16152, CVE-2026-50722 strongSwan: PKCS #1 v1.5',
    'CVE-2018-16151: RSASSA-PKCS1-v1_5',
    'CVE-2018-16152: RSASSA-PKCS1-v1_5',
    'CVE-2026-50722: RSASSA-PKCS1-v1_5',
  ],
  [
    'CVE-2017-11185, CVE-2017-9022, CVE-2021-41990 strongSwan: RSA values, moduli, salts',
    'CVE-2017-11185: RSA signature of value ',
    'CVE-2017-9022, CVE-2021-41990: RSA with modulus 0',
    'CVE-2021-41990: RSASSA-PSS with a huge salt',
  ],
  [
    'CVE-2017-9023, CVE-2026-78130 to 78132 strongSwan: ASN.1',
    'CVE-2017-9023: *',
    'CVE-2017-9023, CVE-2026-78130: lengths beyond the buffer',
  ],
  ['CVE-2018-10811 strongSwan: a PRF that is not there', 'CVE-2018-10811: only a PRF'],
  [
    'CVE-2013-2944 strongSwan: empty ECDSA signature',
    'CVE-2013-2944: ECDSA without a signature',
    'CVE-2013-2944: an empty or malformed ECDSA signature',
  ],
  [
    'CVE-2023-41913 strongSwan: KE too long',
    'CVE-2023-41913: KE longer than the group',
    'CVE-2023-41913: a P-256 value',
  ],
  [
    'CVE-2013-6467 libreswan: mandatory payloads left out',
    'CVE-2013-6467: IKE_SA_INIT without *',
    'CVE-2013-6467: IKE_AUTH without *',
    'CVE-2013-6467: answer without *',
  ],
  ['CVE-2015-3240 libreswan: KE value 0', 'CVE-2015-3240: KE value 0', 'CVE-2015-3240: no point of P-256'],
  ['CVE-2016-5391 libreswan: no KE transform', 'CVE-2016-5391: IKE proposal without a KE transform'],
  ['CVE-2016-3071 libreswan: offered, not implemented', 'CVE-2016-3071: whatever we offer, we can do'],
  ['CVE-2013-4564 libreswan: lengths', 'CVE-2013-4564: datagrams shorter than the header'],
  ['CVE-2019-12312 libreswan: INFORMATIONAL too early', 'CVE-2019-12312: INFORMATIONAL'],
  [
    'CVE-2023-23009 libreswan: traffic selectors',
    'CVE-2023-23009: TS with *',
    '2.9: only selectors of an unknown type',
  ],
  ['CVE-2023-38710 libreswan: REKEY_SA', 'CVE-2023-38710: REKEY_SA of * with an SPI of *'],
  [
    'CVE-2026-12413 libreswan: fragments',
    'CVE-2026-12413: many unknown payloads before SK',
    'CVE-2026-12413: fragment *',
    'RFC 7383 2.6: more pieces than before replace them; fewer are dropped',
  ],
  [
    'CVE-2016-1287, CVE-2016-1344 Cisco: fragment lengths, queues',
    'CVE-2016-1287: fragment lengths that underflow',
    'CVE-2016-1344: sets that are never finished',
  ],
  [
    'CVE-2024-3652 libreswan: key lengths',
    'CVE-2024-3652: ESP without encryption',
    'CVE-2024-3652: AES-GCM without key length',
    'CVE-2024-3652: key length twice',
    'CVE-2024-3652: AES-GCM of * bits',
  ],
  ['CVE-2024-2357 libreswan: no secret for an identity', 'CVE-2024-2357 / a stranger'],
  [
    'CVE-2025-9242 WatchGuard: sizes at their limits',
    'CVE-2025-9242: IDi of 60000 octets',
    'CVE-2025-9242: nonce of * octets',
    'CVE-2025-9242: * of 64 KiB',
  ],
  ['CVE-2023-28771 Zyxel: metacharacters', 'CVE-2023-28771: metacharacters in a notify'],
  [
    'OpenBSD 7.8 errata 027 iked: messages out of order',
    'OpenBSD 7.8 errata 027: messages in every wrong order',
    'OpenBSD 7.8 errata 027: an initiator hears answers in every wrong order',
  ],
  ['CVE-2009-0790 strongSwan: unknown SPIs', 'CVE-2009-0790: INFORMATIONAL for SPIs that are nobody'],
  [
    'RFC 7296: bits, versions, flags, payloads around SK',
    'RFC 7296: critical unknown payload',
    'RFC 7296: the critical bit on known payloads and every reserved bit',
    'RFC 7296: other major versions, I and R flags, unknown exchanges',
    'RFC 7296: two SK, nothing in SK',
  ],
  [
    'RFC 7296 2.2: message IDs',
    '2.2: message IDs too low and too high',
    'RFC 7296: a request of ours that comes back to us is nobody',
  ],
  [
    'RFC 7296 2.7: answers never offered',
    '2.7: a proposal number never offered',
    '2.7: two proposals',
    '2.7: changed key length',
    '2.7: KE group not of the SA',
  ],
  [
    'RFC 7296 2.9, 2.19: selectors and addresses of a responder',
    '2.9: TSi wider than the lease',
    '2.19: two addresses',
    '2.19: wrong netmask',
    '2.19: IPv6 to an IPv4 request',
    '2.19: no reply to CP',
  ],
  [
    'RFC 7619: NULL',
    '7619: NULL with wrong octets',
    '7619: NULL from a node that must sign',
    '(method 13 in a second round)',
    '7619: INITIAL_CONTACT of a NULL peer',
    '7619: ID_NULL with data',
  ],
  [
    'RFC 7427, RFC 8420: signatures',
    '8420: we do not sign for a responder that did not announce',
    '8420: Ed25519ph',
    '7427/8420: Ed25519 with *',
    '7427: a signature by the right key over',
  ],
  [
    'RFC 9242, RFC 9370: additional key exchanges',
    '9242: a second IKE_INTERMEDIATE',
    '9242: IKE_INTERMEDIATE is skipped',
    '9370: IKE_INTERMEDIATE with *',
    '9370: ADDKE2 without NONE',
    '9242: IntAuth *',
    'downgrade: *',
  ],
  ['RFC 5723: resumption', '5723: IKE_SESSION_RESUME'],
  [
    'cookies',
    'cookies: none, of 0, 64 and 65 octets, from elsewhere, not first',
    'cookies: an initiator is not led in circles',
  ],
]

const sources = globSync('test/{ikev2,crypto}/*.test.ts', { cwd: ROOT })
  .filter((file) => !file.endsWith('catalogue.test.ts'))
  .map((file) => readFileSync(`${ROOT}/${file}`, 'utf8').replaceAll(/\$\{[^}]*\}/g, '*'))

for (const [input, ...tests] of CATALOGUE)
  test(`has a test: ${input}`, () => {
    assert.ok(tests.length > 0)
    for (const title of tests)
      assert.ok(
        sources.some((source) => source.includes(title)),
        `no test is called "${title}"`,
      )
  })
