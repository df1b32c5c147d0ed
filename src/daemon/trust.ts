/** Whom a daemon believes: what its configuration pins, or a bootstrap file and what followed it since. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { IpprivError } from '#base/errors'
import { unwrap } from '#base/result'
import { type DirectoryServer, serverOf, type TrustedDirectory } from '#config/trust'
import type { CryptoProvider } from '#crypto/provider'
import { type Bootstrap, followChain, readChain } from '#directory/bootstrap'

export interface Trust {
  readonly servers: readonly [DirectoryServer, ...DirectoryServer[]]
  readonly keys: readonly Uint8Array[]
  readonly threshold: number
  /** Who else hands out documents. */
  readonly mirrors: readonly DirectoryServer[]
  /** Undefined: the configuration pins them itself. */
  readonly bootstrap: Bootstrap | undefined
}

/** Where a daemon keeps the newest bootstrap file it was given. */
export const keptBootstrap = (state: string): string => join(state, 'bootstrap')

/**
 * @throws IpprivError IPP_CONFIG_UNREADABLE, and what `readChain` says of the file that is configured. A kept one that does
 * not follow it is of another network or older, and is not looked at.
 */
export async function resolveTrust(
  directory: TrustedDirectory,
  state: string,
  crypto: CryptoProvider,
): Promise<Trust> {
  if (directory.kind === 'pinned') {
    const { keys, threshold, servers, mirrors } = directory
    return { servers: atLeastOne(servers), keys, threshold, mirrors, bootstrap: undefined }
  }
  const { newest: configured } = await readBootstrapChain(directory.file, crypto)
  const kept = await readKept(keptBootstrap(state))
  const chain = kept === undefined ? undefined : readChain(kept, crypto)
  const followed = chain?.ok ? followChain(configured, chain.value, crypto) : undefined
  return trustOf(followed?.ok ? followed.value : configured, directory.mirrors)
}

/** @throws IpprivError IPP_CONFIG_UNREADABLE, IPP_DIR_* */
export async function readBootstrapChain(
  file: string,
  crypto: CryptoProvider,
): Promise<{ readonly text: string; readonly newest: Bootstrap }> {
  let bytes: Buffer
  try {
    bytes = await readFile(file)
  } catch (cause) {
    throw new IpprivError('IPP_CONFIG_UNREADABLE', `${file}: ${(cause as Error).message}`, { cause })
  }
  const newest = unwrap(readChain(bytes, crypto)).at(-1)
  if (newest === undefined) throw new IpprivError('IPP_DIR_MALFORMED', `${file}: it is empty`)
  return { text: bytes.toString('latin1'), newest }
}

export function trustOf(bootstrap: Bootstrap, mirrors: Trust['mirrors'] = []): Trust {
  const { authorities, threshold } = bootstrap
  return {
    servers: atLeastOne(authorities.map(({ url }) => serverOf(url))),
    keys: authorities.map(({ key }) => key),
    threshold,
    mirrors,
    bootstrap,
  }
}

const atLeastOne = (servers: readonly DirectoryServer[]) =>
  servers as readonly [DirectoryServer, ...DirectoryServer[]]

async function readKept(file: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(file)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new IpprivError('IPP_STATE_UNUSABLE', `${file}: ${(cause as Error).message}`, { cause })
  }
}
