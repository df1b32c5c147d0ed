/** `ippriv directory`: the directory server, alone or one of several authorities. */
import { mkdir } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'

import { equalBytes, toHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { type Duration, SECOND, unixTime } from '#base/time'
import { type DirectoryConfig, loadConfig } from '#config/load'
import { nodeCrypto } from '#crypto/node'
import { BootstrapFile } from '#daemon/bootstrap-file'
import { Runtime } from '#daemon/runtime'
import { readSigner } from '#daemon/signing-key'
import { readBootstrapChain } from '#daemon/trust'
import { backupFolder, restoreFolder, type StoreKind } from '#directory/backup'
import type { Bootstrap } from '#directory/bootstrap'
import { identityOf } from '#directory/certificate'
import { type Authorities, startDirectory } from '#directory/daemon'
import { TokenFile } from '#directory/token-file'
import { controlRequest } from '#linux/control'

const LOOK_AT_FILE: Duration = 5 * SECOND

export async function runDirectory(options: { config: string; check?: boolean }): Promise<void> {
  const config = await loadConfig('directory', options.config)
  const key = await readSigner(config.keys)
  const { authorities, bootstrap } = await authoritiesOf(config, identityOf(key))
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
      ...(config.parameters === undefined ? {} : { parameters: config.parameters }),
      ...(authorities === undefined ? {} : { authorities }),
      crypto: runtime.crypto,
      log: runtime.log,
    })
    runtime.onClose(() => server.close())
    if (bootstrap !== undefined) {
      const file = new BootstrapFile({
        ...bootstrap,
        crypto: runtime.crypto,
        onChange: ({ serial, authorities: members, threshold }, chain) => {
          const stays = server.reseat({ members, threshold, bootstrap: chain })
          if (stays) runtime.log.info({ serial }, 'new authorities, from the next period on')
          else runtime.log.error({ serial }, 'this authority was removed: nobody listens to it any more')
        },
        onTrouble: (line) => runtime.log.warn({ line }, 'the bootstrap file was refused'),
      })
      const timer = setInterval(() => void file.look(), LOOK_AT_FILE)
      runtime.onClose(() => clearInterval(timer))
    }
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

/** Nothing: it decides alone. @throws IpprivError IPP_CONFIG_INVALID when the key is of none of them */
async function authoritiesOf(
  { council, file }: DirectoryConfig,
  own: Uint8Array,
): Promise<{
  readonly authorities?: Authorities
  readonly bootstrap?: { readonly file: string; readonly held: Bootstrap }
}> {
  if (council === undefined) return {}
  const chain = council.kind === 'pinned' ? undefined : await readBootstrapChain(council.file, nodeCrypto)
  const { authorities: members, threshold } = council.kind === 'pinned' ? council : chain!.newest
  if (!members.some(({ key }) => equalBytes(key, own)))
    throw new IpprivError('IPP_CONFIG_INVALID', `${file}: authorities: none has our key, ${toHex(own)}`)
  if (council.kind === 'pinned') return { authorities: { members, threshold } }
  const { text, newest } = chain!
  return {
    authorities: { members, threshold, bootstrap: text },
    bootstrap: { file: council.file, held: newest },
  }
}
