/** `ippriv directory`: the directory server. */
import { readAuthorityKey } from '#config/keys'
import { loadConfig } from '#config/load'
import { Runtime } from '#daemon/runtime'
import { startDirectory } from '#directory/daemon'

export async function runDirectory(options: { config: string; check?: boolean }): Promise<void> {
  const config = await loadConfig('directory', options.config)
  const key = await readAuthorityKey(config.keys)
  if (options.check) return
  const runtime = new Runtime('directory', config)
  await runtime.run(async () => {
    const server = await startDirectory({
      listen: config.listen,
      key: { privateKey: key.seed, publicKey: key.publicKey },
      stateDir: config.state,
      plan: { space: config.poolSpace, length: config.poolLength },
      period: config.period,
      uploads: config.uploads,
      crypto: runtime.crypto,
      log: runtime.log,
    })
    runtime.onClose(() => server.close())
    runtime.serve({ status: async () => server.status() })
    return undefined
  })
}
