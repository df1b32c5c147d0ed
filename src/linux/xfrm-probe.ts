/** Whether this kernel can carry ESP: asked by trying, because no configuration file says it reliably. */

import { randomBytes, randomInt } from 'node:crypto'
import type { Spi } from '#base/ids'
import { SPI_MIN } from '#base/ids'
import { ip } from '#base/ip'
import type { EspCipher } from '#crypto/suites'
import { ESP_CIPHER_NAMES, keyingLength } from '#crypto/suites'
import { isErrno, Netlink } from '#linux/netlink'
import { saInstallRequest, saRemoveRequest } from '#linux/xfrm-messages'
import type { SaSpec } from '#telescope/plane'
import { REQID_COUNT, reqId } from '#telescope/plane'

export interface EspSupport {
  /** Ciphers with which the kernel takes an SA. */
  readonly ciphers: readonly EspCipher[]
  /** Why a cipher is missing. */
  readonly reason?: string
}

/**
 * Tries whether this kernel does ESP, by installing a throw-away SA between documentation addresses (RFC 5737)
 * for each cipher.
 * @throws IpprivError IPP_HOST_PRIVILEGE
 */
export async function probeKernelEsp(): Promise<EspSupport> {
  const ciphers: EspCipher[] = []
  let reason: string | undefined
  let netlink: Netlink | undefined
  try {
    netlink = new Netlink('xfrm')
    for (const cipher of ESP_CIPHER_NAMES) {
      const sa = throwAwaySa(cipher)
      const [refused] = await netlink.batch([saInstallRequest(sa), saRemoveRequest(sa)])
      if (!refused) ciphers.push(cipher)
      else if (refused.code === 'IPP_HOST_PRIVILEGE') throw refused
      else reason ??= `the kernel refuses ESP with ${cipher} (${refused.errno}); it needs CONFIG_INET_ESP`
    }
  } catch (error) {
    if (!isErrno(error, 'EPROTONOSUPPORT')) throw error
    reason = 'the kernel has no XFRM netlink (CONFIG_XFRM_USER)'
  } finally {
    netlink?.close()
  }
  return { ciphers, ...(reason !== undefined && { reason }) }
}

const throwAwaySa = (cipher: EspCipher): SaSpec => ({
  source: ip('192.0.2.1'),
  destination: ip('192.0.2.2'),
  spi: randomInt(SPI_MIN, 0x1_0000_0000) as Spi,
  flow: 'inbound',
  reqid: reqId(REQID_COUNT - 1),
  cipher,
  key: new Uint8Array(randomBytes(keyingLength(cipher))),
  esn: true,
  replayWindow: 64,
})
