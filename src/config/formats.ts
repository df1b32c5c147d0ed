/** What a string of the configuration must be, beyond its pattern. Each check gives what was wrong, or undefined. */
import { parseIp, parsePrefix } from '#base/ip'
import { parseExitRule } from '#nat/exit-policy'

export type FormatName = 'ipv4' | 'ipv4-prefix' | 'directory-url' | 'exit-rule' | 'node' | 'node-or-network'

export const FORMATS: Readonly<Record<FormatName, (text: string) => string | undefined>> = {
  ipv4: (text) => (parseIp(text) === undefined ? 'no IPv4 address' : undefined),
  'ipv4-prefix': (text) =>
    parsePrefix(text) === undefined ? 'no IPv4 prefix with host bits zero' : undefined,
  'directory-url': (text) => (parseDirectoryUrl(text) === undefined ? 'no such URL' : undefined),
  'exit-rule': (text) => {
    const rule = parseExitRule(text)
    return rule.ok ? undefined : rule.where
  },
  node: (text) => (NODE.test(text) ? undefined : 'neither a name of a node nor a node id'),
  'node-or-network': (text) =>
    NODE.test(text) || parsePrefix(text) !== undefined ? undefined : 'no node and no IPv4 prefix',
}

/** A name, or a node id. Neither can be taken for a network. */
const NODE = /^([a-z0-9-]{1,19}|[0-9a-f]{64})$/

export interface DirectoryUrl {
  readonly address: string
  readonly port: number
  /** Without a slash at the end. */
  readonly base: string
}

/** `http://IPv4[:port]` with nothing behind it; the port is 80 when it is not said. */
export function parseDirectoryUrl(text: string): DirectoryUrl | undefined {
  const match = /^http:\/\/([0-9.]+)(?::([1-9]\d{0,4}))?\/?$/.exec(text)
  const address = match === null ? undefined : parseIp(match[1]!)
  if (match === null || address === undefined) return undefined
  const port = match[2] === undefined ? 80 : Number(match[2])
  return port > 65535 ? undefined : { address, port, base: `http://${address}:${port}` }
}
