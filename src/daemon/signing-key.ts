/** The keys an authority signs with: made and certified for a while, and read when the daemon starts. */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { toHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { unixTime } from '#base/time'
import { CERTIFICATE_FILE, createSigningKey, readAuthorityKey, readKeyFile, SIGNING_FILE } from '#config/keys'
import { nodeCrypto } from '#crypto/node'
import {
  formatCertificate,
  isCertified,
  issueCertificate,
  parseCertificate,
  type Signer,
} from '#directory/certificate'
import { formatMoment } from '#directory/consensus'

const DAY = 86_400
const MOST_DAYS = 400

/**
 * Makes signing.pem and signing.cert in `dir`. @throws IpprivError IPP_KEY_UNREADABLE (also when one exists already),
 * IPP_KEY_INVALID, IPP_CONFIG_INVALID
 */
export async function certifySigningKey({
  key,
  dir,
  days,
}: {
  readonly key: string
  readonly dir: string
  readonly days: number
}): Promise<{ identity: string; signingKey: string; validUntil: string }> {
  if (!Number.isInteger(days) || days < 1 || days > MOST_DAYS)
    throw new IpprivError('IPP_CONFIG_INVALID', `--days: expected 1 to ${MOST_DAYS}`)
  const identity = await readKeyFile(key)
  const { publicKey } = await createSigningKey(dir)
  const now = unixTime(Date.now() / 1000)
  const certificate = issueCertificate(
    publicKey,
    { validAfter: now, validUntil: unixTime(now + days * DAY) },
    { privateKey: identity.seed, publicKey: identity.publicKey },
    nodeCrypto,
  )
  const file = join(dir, CERTIFICATE_FILE)
  try {
    await using handle = await open(file, 'wx', 0o644)
    await handle.writeFile(`${formatCertificate(publicKey, certificate)}\n`)
    await handle.sync()
  } catch (cause) {
    throw new IpprivError('IPP_KEY_UNREADABLE', `${file}: ${(cause as Error).message}`, { cause })
  }
  return {
    identity: toHex(identity.publicKey),
    signingKey: toHex(publicKey),
    validUntil: formatMoment(certificate.validUntil),
  }
}

/** @throws IpprivError IPP_KEY_*: also when the certificate is of another key, or not of now */
export async function readSigner(keys: string): Promise<Signer> {
  const { key, certificate: line } = await readAuthorityKey(keys)
  const pair = { privateKey: key.seed, publicKey: key.publicKey }
  if (line === undefined) return pair
  const certificate = parseCertificate(line, key.publicKey)
  const file = join(keys, CERTIFICATE_FILE)
  if (certificate === undefined)
    throw new IpprivError('IPP_KEY_INVALID', `${file}: no certificate of the key in ${SIGNING_FILE}`)
  if (isCertified(key.publicKey, certificate, unixTime(Date.now() / 1000), nodeCrypto))
    return { ...pair, certificate }
  const { validAfter, validUntil } = certificate
  const times = `${formatMoment(validAfter)} to ${formatMoment(validUntil)}`
  throw new IpprivError('IPP_KEY_INVALID', `${file}: it does not verify, or not now: it says ${times}`)
}
