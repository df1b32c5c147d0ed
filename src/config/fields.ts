/**
 * What the schemas of configuration files (`schema.ts`) are made of: kinds of values, and sections that several kinds of
 * daemon have.
 */
import { Type } from 'typebox'

export const text = (expected: string, options: Record<string, unknown> = {}) =>
  Type.String({ expected, ...options })

export const path = (description: string, options: Record<string, unknown> = {}) =>
  text('a path', { description, minLength: 1, ...options })

export const integer = (minimum: number, maximum: number, options: Record<string, unknown>) =>
  Type.Integer({ minimum, maximum, expected: `an integer ${minimum}..${maximum}`, ...options })

/** One of a few words. TypeBox's own enum forgets which. */
export const choice = <const T extends readonly string[]>(values: T, options: Record<string, unknown>) =>
  Type.Unsafe<T[number]>({
    type: 'string',
    enum: [...values],
    expected: `one of ${values.join(', ')}`,
    ...options,
  })

export const section = <P extends Record<string, Type.TSchema>>(
  properties: P,
  options: Record<string, unknown> = {},
) => Type.Object(properties, { additionalProperties: false, expected: 'a mapping of keys', ...options })

export const address = (description: string) =>
  text('an IPv4 address such as 198.18.10.1', { description, format: 'ipv4' })

const NAME_PATTERN = '^[a-z0-9][a-z0-9-]{0,18}$'
export const nodeName = (description: string) =>
  text('a name of 1..19 characters a-z, 0-9 and -', { description, pattern: NAME_PATTERN })

export const Log = section(
  {
    level: Type.Optional(
      choice(['debug', 'info', 'warn', 'error'], {
        description:
          'How much is written. From `info` up no client address, path, destination or key is ever written; `debug` may show them.',
        default: 'info',
      }),
    ),
    format: Type.Optional(
      choice(['json', 'text'], {
        description: 'One JSON object per line, or lines for people.',
        default: 'json',
      }),
    ),
  },
  { description: 'What is written to stderr.' },
)

export const Debug = section(
  {
    keylog: Type.Optional(
      path(
        'Directory to which the keys of every SA are appended, for Wireshark. **Whoever reads it can read the traffic.** The daemon warns at start.',
      ),
    ),
  },
  { description: 'Dangerous aids for tests.' },
)

export const Plane = choice(['auto', 'xfrm', 'userspace'], {
  description:
    'Data plane: the kernel (`xfrm`), our own workers (`userspace`), or the kernel where it can do ESP (`auto`).',
  default: 'auto',
})

export const Userspace = section(
  {
    workers: Type.Optional(
      integer(1, 64, {
        description: 'Threads that work on packets; more than processors is no use.',
        default: 1,
      }),
    ),
    parallel: Type.Optional(
      choice(['connection', 'packet'], {
        description:
          'What is spread over the threads: whole SAs and connections (`connection`: best for many), or the packets of each (`packet`: best for few).',
        default: 'connection',
      }),
    ),
  },
  { description: 'The userspace plane, where it runs.' },
)

export const directoryUrl = (description: string) =>
  text('a URL such as http://198.18.50.1:9030 with an IPv4 address and a port', {
    description,
    format: 'directory-url',
  })
export const publicKey = (description: string) =>
  text('64 hex digits, as `ippriv keygen directory` prints them', {
    description,
    pattern: '^[0-9a-fA-F]{64}$',
  })
export const MOST_AUTHORITIES = 16
const MOST_MIRRORS = 32
export const threshold = integer(1, MOST_AUTHORITIES, {
  description: 'So many authorities must have signed a consensus: more than half of them.',
})

export const Metrics = section(
  {
    listen: section(
      {
        address: Type.Optional(
          text('an IPv4 address such as 198.18.10.1', {
            description: 'IPv4 address to listen on. Whoever reaches it reads the counters.',
            format: 'ipv4',
            default: '127.0.0.1',
          }),
        ),
        port: integer(1, 65535, { description: 'TCP port.' }),
      },
      { description: 'Where Prometheus asks for `/metrics`.' },
    ),
  },
  {
    description:
      'Counters for Prometheus, over HTTP (docs/metrics.md). Without this section there is no such server. They are sums of the whole daemon: none is of one circuit or one client.',
  },
)

export const DirectoryReference = section(
  {
    url: Type.Optional(
      directoryUrl(
        'Where a single one listens. An address, not a name: looking one up would tell a resolver. Documents are signed, so plain HTTP does.',
      ),
    ),
    key: Type.Optional(publicKey('Its public key. A consensus that it did not sign is refused.')),
    urls: Type.Optional(
      Type.Array(directoryUrl(''), {
        expected: 'a list of URLs such as http://198.18.50.1:9030',
        description: 'Where several authorities listen: the next is asked when one fails.',
        minItems: 1,
        maxItems: MOST_AUTHORITIES,
        uniqueItems: true,
      }),
    ),
    keys: Type.Optional(
      Type.Array(publicKey(''), {
        expected: 'a list of public keys',
        description: 'Public keys of all authorities, in any order.',
        minItems: 1,
        maxItems: MOST_AUTHORITIES,
        uniqueItems: true,
      }),
    ),
    threshold: Type.Optional(threshold),
    bootstrap: Type.Optional(
      path('Instead of all these: a bootstrap file, which the authorities signed (docs/directory.md).'),
    ),
    mirrors: Type.Optional(
      Type.Array(directoryUrl(''), {
        expected: 'a list of URLs such as http://198.18.50.1:9030',
        description:
          'Who else hands out the consensus over plain HTTP, such as nodes with `cache: everywhere` (port 9031). Documents are signed, so nobody has to trust them. A few are asked first, in random order, then the authorities.',
        minItems: 1,
        maxItems: MOST_MIRRORS,
        uniqueItems: true,
      }),
    ),
  },
  {
    description:
      'The directory this daemon trusts: `url` and `key`, or `urls`, `keys` and `threshold`, or `bootstrap`.',
  },
)

export const state = (kind: string) =>
  path('Directory for what must survive a restart; created when missing.', {
    examples: [`/var/lib/ippriv/${kind}`],
  })
export const keys = path('Directory of the key files. Default: `keys` inside `state`.')
export const control = (kind: string) =>
  path('Unix socket on which `ippriv status` and `ippriv circuits` reach the daemon.', {
    default: `/run/ippriv/${kind}.sock`,
  })
