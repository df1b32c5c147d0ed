/** `ippriv directory`: the directory server, alone or one of several authorities. */
import { mkdir } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'

import { equalBytes, toHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { unixTime } from '#base/time'
import { type DirectoryConfig, loadConfig } from '#config/load'
import { nodeCrypto } from '#crypto/node'
import { Runtime } from '#daemon/runtime'
import { readSigner } from '#daemon/signing-key'
import { readBootstrapChain } from '#daemon/trust'
import { backupFolder, restoreFolder, type StoreKind } from '#directory/backup'
import { identityOf } from '#directory/certificate'
import { type Authorities, startDirectory } from '#directory/daemon'
import { TokenFile } from '#directory/token-file'
import { controlRequest } from '#linux/control'

export async function runDirectory(options: { config: string; check?: boolean }): Promise<void> {
  const config = await loadConfig('directory', options.config)
  const key = await readSigner(config.keys)
  const authorities = await authoritiesOf(config, identityOf(key))
  if (config.tokens !== undefined) await new TokenFile(config.tokens, nodeCrypto).read()
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
      work: config.work,
      ...(config.tokens === undefined ? {} : { tokens: config.tokens }),
      ...(config.measurer === undefined ? {} : { measurer: config.measurer }),
      ...(authorities === undefined ? {} : { authorities }),
      crypto: runtime.crypto,
      log: runtime.log,
    })
    runtime.onClose(() => server.close())
    await runtime.serve(
      {
        status: async () => server.status(),
        backup: async ({ file }) => {
          if (typeof file !== 'string' || !isAbsolute(file))
            throw new IpprivError('IPP_CONFIG_INVALID', 'file: expected an absolute path')
          return { entries: await server.backup(file) }
        },
      },
      config.metrics,
    )
    return undefined
  })
}

/**
 * `ippriv directory backup`, whether the directory runs or not. @throws IpprivError IPP_STATE_UNUSABLE
 */
export async function backupDirectory(file: string, out: string): Promise<number> {
  const config = await loadConfig('directory', file)
  try {
    const answer = await controlRequest(config.control, 'backup', { file: out }, 60_000)
    return (answer as { entries: number }).entries
  } catch (error) {
    if (!(error instanceof IpprivError && error.code === 'IPP_CONTROL_UNREACHABLE')) throw error
    const { folder, store } = storeOf(config)
    return await backupFolder(folder, store, out, unixTime(Date.now() / 1000))
  }
}

/** `ippriv directory restore`, into a state directory without that memory. @throws IpprivError IPP_STATE_UNUSABLE */
export async function restoreDirectory(file: string, from: string): Promise<number> {
  const config = await loadConfig('directory', file)
  const { folder, store } = storeOf(config)
  await mkdir(config.state, { recursive: true, mode: 0o700 })
  return await restoreFolder(from, store, folder, {
    now: unixTime(Date.now() / 1000),
    period: config.period,
  })
}

function storeOf({ council, state }: DirectoryConfig): { folder: string; store: StoreKind } {
  const store = council === undefined ? 'directory' : 'authority'
  return { folder: join(state, `${store}.level`), store }
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
