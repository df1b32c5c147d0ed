/**
 * The log of a daemon: pino to stderr. Levels are promises (architecture section 3 rule 13): unless the operator
 * chose level `debug`, no line shows a client address, a path, a destination or a key. Callers keep the promise by
 * choosing the level; what stands here keeps it where a caller forgets:
 *  - fields with a name of `PRIVATE_FIELDS` are replaced;
 *  - IPv4 addresses inside free text (messages, `detail`) are replaced: an error text may quote one;
 *  - keys are replaced at every level.
 */
import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino'

export type Log = Logger

export interface LogOptions {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly format: 'json' | 'text'
}

/** Never shown unless the level is `debug`. */
export const PRIVATE_FIELDS: ReadonlySet<string> = new Set([
  'address',
  'client',
  'destination',
  'endpoint',
  'lease',
  'leased',
  'local',
  'path',
  'privateAddress',
  'privateAddresses',
  'remote',
  'selector',
  'source',
])

/** Never shown. */
export const SECRET_FIELDS: ReadonlySet<string> = new Set([
  'key',
  'inboundKey',
  'outboundKey',
  'privateKey',
  'secret',
  'seed',
  'skEi',
  'skEr',
])

/** `to` is for tests; the log goes to stderr, synchronously: the last words of a daemon that dies must be read. */
export function createLog(options: LogOptions, to?: DestinationStream): Log {
  const sink = to ?? destination({ fd: 2, sync: true })
  const showPrivate = options.level === 'debug'
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      hooks: {
        logMethod(args, method) {
          const [first, ...rest] = args.map((value: unknown) =>
            typeof value === 'string'
              ? showPrivate
                ? value
                : withoutAddresses(value)
              : withoutSecrets(value, showPrivate),
          )
          method.apply(this, [first, ...rest] as Parameters<typeof method>)
        },
      },
    },
    options.format === 'json' ? sink : textStream(sink),
  )
}

const REDACTED = '[redacted]'
const ADDRESS = /\b\d{1,3}(?:\.\d{1,3}){3}\b/g
const MAX_DEPTH = 4

const withoutAddresses = (text: string): string => text.replace(ADDRESS, '[address]')

/** A copy of logged fields without what must not be shown. Anything that is no plain object or list stays as it is. */
function withoutSecrets(value: unknown, showPrivate: boolean, depth = 0): unknown {
  if (depth > MAX_DEPTH) return REDACTED
  if (value instanceof Uint8Array) return REDACTED
  if (value instanceof Error) return showPrivate ? value : { message: withoutAddresses(value.message) }
  if (Array.isArray(value)) return value.map((item) => withoutSecrets(item, showPrivate, depth + 1))
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return value
  return Object.fromEntries(
    Object.entries(value).map(([name, field]) => {
      if (SECRET_FIELDS.has(name) || (!showPrivate && PRIVATE_FIELDS.has(name))) return [name, REDACTED]
      if (name === 'detail' && typeof field === 'string' && !showPrivate)
        return [name, withoutAddresses(field)]
      return [name, withoutSecrets(field, showPrivate, depth + 1)]
    }),
  )
}

/** Turns pino's JSON into `12:34:56.789 info  message  field=value`. */
function textStream(sink: DestinationStream): DestinationStream {
  return {
    write(line) {
      const { level, time, msg, ...fields } = JSON.parse(line) as Record<string, unknown>
      const rest = Object.entries(fields).map(([name, value]) => `${name}=${textOf(value)}`)
      const head = `${String(time).slice(11, 23)} ${String(level).padEnd(5)} ${String(msg ?? '')}`
      sink.write(`${[head, ...rest].join('  ')}\n`)
    },
  }
}

const textOf = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value))
