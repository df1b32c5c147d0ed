/** Reads a configuration file: YAML, schema, then what only makes sense together. Gives values, not text. */
import { readFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { LineCounter, parseDocument } from 'yaml'
import { fromHex } from '#base/bytes'
import { IpprivError } from '#base/errors'
import { formatPrefix, type Ip, ip, isPrivateNetwork, type Prefix, parsePrefix, prefix } from '#base/ip'
import { type IsolationConfig, isolationOf, isolationProblem } from '#config/isolation'
import { type ConfigFile, type ConfigKind, schemaOf } from '#config/schema'
import {
  type CouncilConfig,
  councilOf,
  councilProblem,
  directoryOf,
  directoryProblem,
  type TrustedDirectory,
} from '#config/trust'
import { formatProblem, type Locator, locate, type Problem, validate } from '#config/validate'
import type { EspCipher } from '#crypto/suites'
import type { NetworkParameters, NodeRole } from '#directory/documents'
import { DEFAULT_PARAMETERS } from '#directory/parameters'
import { DEFAULT_WORK } from '#directory/work'
import { exitAllowsAnything, exitPolicyOf, parseExitPolicy } from '#nat/exit-policy'
import type { ExitPolicy } from '#nat/rules'

export interface NodeConfig extends DaemonConfig {
  readonly kind: 'node'
  readonly name: string
  readonly address: Ip
  readonly roles: readonly NodeRole[]
  /** Directory of identity.pem and ike.pem. */
  readonly keys: string
  readonly plane: PlaneChoice
  readonly userspace: UserspaceConfig
  readonly directory: TrustedDirectory
  /** We only speak for a router that is not ours. */
  readonly stock: StockConfig | undefined
  /** Empty unless this is an exit. */
  readonly exitPolicy: ExitPolicy
  /** Kilobits per second. */
  readonly bandwidth: number | undefined
  /** Key file of its family. */
  readonly family: string | undefined
  /** File of a token of the directory's operator. */
  readonly token: string | undefined
  readonly metrics: MetricsConfig
  /** Undefined: off. `limit` is in milliseconds, or octets for `data`. */
  readonly resumption: ResumptionConfig | undefined
  /** Where it hands documents on. */
  readonly cache: CacheReach
  /** Directory of the key log; undefined: none is written. */
  readonly keylog: string | undefined
}

export type CacheReach = 'off' | 'overlay' | 'everywhere'

export interface StockConfig {
  /** The published pre-shared key. */
  readonly key: string
  /** PEM file; undefined: ike.pem has the router's key. */
  readonly publicKey: string | undefined
}

export interface ClientConfig extends DaemonConfig {
  readonly kind: 'client'
  readonly address: Ip | undefined
  readonly plane: PlaneChoice
  readonly userspace: UserspaceConfig
  readonly directory: TrustedDirectory
  readonly circuit: {
    readonly hops: number
    readonly cipher: EspCipher
    /** Names, entry first; undefined: chosen afresh for every circuit. */
    readonly path: readonly string[] | undefined
    /** Circuits that stand ready at most. */
    readonly spares: number
    /** Milliseconds; 0: never. */
    readonly rotation: number
    /** Name or node id. */
    readonly exit: string | undefined
    /** Names and node ids. */
    readonly exclude: readonly string[]
    readonly excludeNetworks: readonly Prefix[]
    readonly sameNetwork: boolean
    /** It builds none by itself. */
    readonly onDemand: boolean
  }
  /** Groups of traffic; empty: all of it is one. */
  readonly isolation: readonly IsolationConfig[]
  readonly metrics: MetricsConfig
  readonly keylog: string | undefined
}

export interface DirectoryConfig extends DaemonConfig {
  readonly kind: 'directory'
  readonly listen: { readonly address: Ip; readonly port: number }
  /** Directory of authority.pem. */
  readonly keys: string
  readonly poolSpace: Prefix
  readonly poolLength: number
  /** From where nodes may upload. */
  readonly uploads: 'own-address' | 'anywhere'
  /** Bits that a newcomer's upload must show. */
  readonly work: number
  /** File of the tokens that free from it. */
  readonly tokens: string | undefined
  /** Seconds. */
  readonly period: number
  /** Undefined: it decides alone. */
  readonly council: CouncilConfig | undefined
  /** Whose reports it takes, and where they are put. */
  readonly measurer: { readonly key: Uint8Array; readonly report: string } | undefined
  /** What it proposes to the others. Undefined: what is usual. */
  readonly parameters: NetworkParameters | undefined
  readonly metrics: MetricsConfig
}

/** Where counters are served to whoever asks; undefined: nowhere. */
export type MetricsConfig = { readonly address: Ip; readonly port: number } | undefined

interface DaemonConfig {
  /** Absolute path of the file this came from. */
  readonly file: string
  /** Absolute paths. */
  readonly state: string
  readonly control: string
  readonly log: LogConfig
}

export interface ResumptionConfig {
  readonly kind: 'clocked' | 'established' | 'data'
  readonly limit: number
}

export interface LogConfig {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly format: 'json' | 'text'
}

export type PlaneChoice = 'auto' | 'xfrm' | 'userspace'

/** How the userspace plane uses its threads. */
export interface UserspaceConfig {
  readonly workers: number
  readonly parallel: 'connection' | 'packet'
}

export interface Configs {
  readonly node: NodeConfig
  readonly client: ClientConfig
  readonly directory: DirectoryConfig
}

/**
 * Paths in the file are relative to the directory of the file.
 * @throws IpprivError IPP_CONFIG_UNREADABLE, IPP_CONFIG_SYNTAX, IPP_CONFIG_INVALID; the last two name
 * file:line:column for every problem.
 */
export async function loadConfig<K extends ConfigKind>(kind: K, file: string): Promise<Configs[K]> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    throw new IpprivError('IPP_CONFIG_UNREADABLE', `${file}: ${(cause as Error).message}`, { cause })
  }
  return parseConfig(kind, text, file)
}

/** As `loadConfig`, from text. `file` is for messages and relative paths. */
export function parseConfig<K extends ConfigKind>(kind: K, text: string, file: string): Configs[K] {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true })
  const [syntax] = document.errors
  if (syntax !== undefined) {
    const { line, col } = lines.linePos(syntax.pos[0])
    throw new IpprivError('IPP_CONFIG_SYNTAX', `${file}:${line}:${col}: ${syntax.message.split('\n')[0]}`)
  }
  const problems = validate(document.contents, schemaOf(kind), lines)
  if (problems.length === 0) {
    const at: Locator = (path, expected, found) => ({
      ...locate(document.contents, path, lines),
      key: keyText(path),
      expected,
      found,
    })
    const value = document.toJS() as ConfigFile<K>
    problems.push(...(TOGETHER[kind] as (value: ConfigFile<K>, at: Locator) => Problem[])(value, at))
    if (problems.length === 0)
      return (COMPLETE[kind] as (value: ConfigFile<K>, file: string) => Configs[K])(value, resolve(file))
  }
  const shown = problems.slice(0, MOST_PROBLEMS).map((problem) => `${file}:${formatProblem(problem)}`)
  const rest = problems.length - shown.length
  throw new IpprivError('IPP_CONFIG_INVALID', `${shown.join('; ')}${rest > 0 ? `; and ${rest} more` : ''}`)
}

const MOST_PROBLEMS = 5

const keyText = (path: readonly (string | number)[]): string =>
  path.reduce<string>(
    (text, step) => (typeof step === 'number' ? `${text}[${step}]` : text === '' ? step : `${text}.${step}`),
    '',
  )

/** Problems between values that are acceptable each by itself. */
const TOGETHER: { readonly [K in ConfigKind]: (value: ConfigFile<K>, at: Locator) => Problem[] } = {
  node(value, at) {
    const unclear = directoryProblem(value.directory, at)
    if (unclear !== undefined) return [unclear]
    const { strategy = 'clocked', limit } = value.resumption ?? {}
    if (strategy === 'clocked' && limit !== undefined && limit > MAX_CLOCKED)
      return [at(['resumption', 'limit'], `at most ${MAX_CLOCKED} with the strategy clocked`, `${limit}`)]
    if (!value.roles.includes('exit'))
      return value.exit === undefined ? [] : [at(['exit'], 'no exit policy without the role exit', 'one')]
    return exitAllowsAnything(nodeExitPolicy(value))
      ? []
      : [at(['exit', 'policy'], 'a rule that accepts something, or no role exit', 'none')]
  },
  client(value, at) {
    const unclear = directoryProblem(value.directory, at)
    if (unclear !== undefined) return [unclear]
    const { hops, path, onDemand = false } = value.circuit ?? {}
    if (hops !== undefined && path !== undefined && path.length !== hops)
      return [at(['circuit', 'path'], `as many names as hops (${hops})`, `${path.length}`)]
    const mixed = isolationProblem(value.isolation ?? [], onDemand, at)
    return mixed === undefined ? [] : [mixed]
  },
  directory(value, at) {
    const space = prefix(value.poolSpace ?? DEFAULT_POOL_SPACE)
    const length = value.poolLength ?? DEFAULT_POOL_LENGTH
    const unclear = councilProblem(value, at)
    if (unclear !== undefined) return [unclear]
    if (!isPrivateNetwork(space))
      return [at(['poolSpace'], 'a part of a private network (RFC 1918, RFC 6598)', formatPrefix(space))]
    if (length >= space.length) return []
    const key = value.poolLength === undefined ? 'poolSpace' : 'poolLength'
    return [at([key], `a poolLength of at least the length of poolSpace (${space.length})`, `${length}`)]
  },
}

const DEFAULT_POOL_SPACE = '10.64.0.0/10'
const DEFAULT_POOL_LENGTH = 20
const DEFAULT_PERIOD = 3600
const DEFAULT_SPARES = 2
/** Seconds. */
const DEFAULT_ROTATION = 3600
const DEFAULT_HOPS = 3
const DEFAULT_CIPHER: EspCipher = 'aes-256-gcm-16'

const COMPLETE: { readonly [K in ConfigKind]: (value: ConfigFile<K>, file: string) => Configs[K] } = {
  node: (value, file) => ({
    kind: 'node',
    ...common('node', value, file),
    name: value.name,
    address: ip(value.address),
    roles: value.roles,
    keys: keysOf(value, file),
    plane: value.plane ?? 'auto',
    userspace: userspaceOf(value.userspace),
    directory: directoryOf(value.directory, (path) => absolute(path, file)),
    metrics: metricsOf(value.metrics),
    stock: value.stock === undefined ? undefined : stockOf(value.stock, file),
    exitPolicy: value.roles.includes('exit') ? nodeExitPolicy(value) : [],
    bandwidth: value.bandwidth,
    family: value.family === undefined ? undefined : absolute(value.family, file),
    token: value.token === undefined ? undefined : absolute(value.token, file),
    cache: value.cache ?? 'overlay',
    resumption: nodeResumption(value),
    keylog: value.debug?.keylog === undefined ? undefined : absolute(value.debug.keylog, file),
  }),
  client: (value, file) => ({
    kind: 'client',
    ...common('client', value, file),
    address: value.address === undefined ? undefined : ip(value.address),
    plane: value.plane ?? 'auto',
    userspace: userspaceOf(value.userspace),
    directory: directoryOf(value.directory, (path) => absolute(path, file)),
    metrics: metricsOf(value.metrics),
    circuit: {
      hops: value.circuit?.path?.length ?? value.circuit?.hops ?? DEFAULT_HOPS,
      cipher: value.circuit?.cipher ?? DEFAULT_CIPHER,
      path: value.circuit?.path,
      spares: value.circuit?.spares ?? DEFAULT_SPARES,
      rotation: (value.circuit?.rotation ?? DEFAULT_ROTATION) * 1000,
      exit: value.circuit?.exit,
      ...excluded(value.circuit?.exclude ?? []),
      sameNetwork: value.circuit?.sameNetwork ?? false,
      onDemand: value.circuit?.onDemand ?? false,
    },
    isolation: isolationOf(value.isolation ?? []),
    keylog: value.debug?.keylog === undefined ? undefined : absolute(value.debug.keylog, file),
  }),
  directory: (value, file) => ({
    kind: 'directory',
    ...common('directory', value, file),
    listen: { address: ip(value.listen.address), port: value.listen.port },
    keys: keysOf(value, file),
    poolSpace: prefix(value.poolSpace ?? DEFAULT_POOL_SPACE),
    poolLength: value.poolLength ?? DEFAULT_POOL_LENGTH,
    uploads: value.uploads ?? 'own-address',
    work: value.work ?? DEFAULT_WORK,
    tokens: value.tokens === undefined ? undefined : absolute(value.tokens, file),
    period: value.period ?? DEFAULT_PERIOD,
    council: councilOf(value, (path) => absolute(path, file)),
    measurer: value.measurer && {
      key: fromHex(value.measurer.key.toLowerCase()),
      report: absolute(value.measurer.report, file),
    },
    parameters: value.network && { ...DEFAULT_PARAMETERS, ...value.network },
    metrics: metricsOf(value.metrics),
  }),
}

function common(
  kind: ConfigKind,
  value: { state: string; control?: string; log?: Partial<LogConfig> },
  file: string,
): DaemonConfig {
  return {
    file,
    state: absolute(value.state, file),
    control: absolute(value.control ?? `/run/ippriv/${kind}.sock`, file),
    log: { level: value.log?.level ?? 'info', format: value.log?.format ?? 'json' },
  }
}

const metricsOf = (value: { listen: { address?: string; port: number } } | undefined): MetricsConfig =>
  value && { address: ip(value.listen.address ?? '127.0.0.1'), port: value.listen.port }

const userspaceOf = (value: Partial<UserspaceConfig> = {}): UserspaceConfig => ({
  workers: value.workers ?? 1,
  parallel: value.parallel ?? 'connection',
})

const keysOf = (value: { state: string; keys?: string }, file: string): string =>
  absolute(value.keys ?? join(value.state, 'keys'), file)

const absolute = (path: string, file: string): string => resolve(dirname(file), path)

const stockOf = (value: { key: string; publicKey?: string }, file: string): StockConfig => ({
  key: value.key,
  publicKey: value.publicKey === undefined ? undefined : absolute(value.publicKey, file),
})

function nodeExitPolicy(value: ConfigFile<'node'>): ExitPolicy {
  const lines = value.exit?.policy
  const own = lines === undefined ? undefined : parseExitPolicy(lines)
  return exitPolicyOf(own?.ok ? own.value : undefined, value.exit?.protect ?? true)
}

/** Seconds: for twice as long a key that opens tickets stays in memory. */
const MAX_CLOCKED = 86_400
const DEFAULT_SECONDS = 7200
const DEFAULT_MEBIBYTES = 50

function nodeResumption({ resumption = {} }: ConfigFile<'node'>): ResumptionConfig | undefined {
  const { strategy: kind = 'clocked', limit } = resumption
  if (kind === 'off') return undefined
  return kind === 'data'
    ? { kind, limit: (limit ?? DEFAULT_MEBIBYTES) * 2 ** 20 }
    : { kind, limit: (limit ?? DEFAULT_SECONDS) * 1000 }
}

/** A prefix has dots, and neither a name nor a node id has. */
function excluded(list: readonly string[]) {
  const excludeNetworks = list.map(parsePrefix).filter((network) => network !== undefined)
  return { exclude: list.filter((each) => parsePrefix(each) === undefined), excludeNetworks }
}
