/** `ippriv directory`: the directory server, alone or one of several authorities. */

import { equalBytes, toHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { type DirectoryConfig, loadConfig } from '#config/load'
import { nodeCrypto } from '#crypto/node'
import { Runtime } from '#daemon/runtime'
import { readSigner } from '#daemon/signing-key'
import { readBootstrapChain } from '#daemon/trust'
import { identityOf } from '#directory/certificate'
import { type Authorities, startDirectory } from '#directory/daemon'

export async function runDirectory(options: { config: string; check?: boolean }): Promise<void> {
  const config = await loadConfig('directory', options.config)
  const key = await readSigner(config.keys)
  const authorities = await authoritiesOf(config, identityOf(key))
  if (options.check) return
  const runtime = new Runtime('directory', config)
  await runtime.run(async () => {
    const server = await startDirectory({
      listen: config.listen,
      key,
      stateDir: config.state,
      plan: { space: config.poolSpace, length: config.poolLength },
      period: config.period,
      uploads: config.uploads,
      ...(authorities === undefined ? {} : { authorities }),
      crypto: runtime.crypto,
      log: runtime.log,
    })
    runtime.onClose(() => server.close())
    await runtime.serve({ status: async () => server.status() }, config.metrics)
    return undefined
  })
}

/** Undefined: it decides alone. @throws IpprivError IPP_CONFIG_INVALID when the key is of none of them */
async function authoritiesOf(
  { council, file }: DirectoryConfig,
  own: Uint8Array,
): Promise<Authorities | undefined> {
  if (council === undefined) return undefined
  const chain = council.kind === 'pinned' ? undefined : await readBootstrapChain(council.file, nodeCrypto)
  const { authorities: members, threshold } = council.kind === 'pinned' ? council : chain!.newest
  if (!members.some(({ key }) => equalBytes(key, own)))
    throw new IpprivError('IPP_CONFIG_INVALID', `${file}: authorities: none has our key, ${toHex(own)}`)
  return { members, threshold, ...(chain === undefined ? {} : { bootstrap: chain.text }) }
}
