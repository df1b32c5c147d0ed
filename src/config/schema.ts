/**
 * The configuration files, in one place: the types of the loader, the JSON Schema, and docs/config.md all come
 * from here. `expected` completes the sentence "expected ..."; `format` names a check of `formats.ts`.
 */
import { type Static, Type } from 'typebox'
import {
  address,
  choice,
  control,
  Debug,
  DirectoryReference,
  directoryUrl,
  integer,
  keys,
  Log,
  Metrics,
  MOST_AUTHORITIES,
  nodeName,
  Plane,
  path,
  publicKey,
  section,
  state,
  text,
  threshold,
  Userspace,
} from '#config/fields'
import type { Schema } from '#config/validate'
import { PUBLISHED_KEY_PATTERN, SOFTWARE_PATTERN } from '#directory/documents'
import { DEFAULT_PARAMETERS, MOST_VERSIONS, SMALLEST_MTU } from '#directory/parameters'
import { VERSION_PATTERN } from '#directory/version'
import { DEFAULT_WORK, MOST_WORK } from '#directory/work'

export const NodeSchema = section(
  {
    name: nodeName('How people call this node; unique in the network.'),
    address: address('Public IPv4 address, configured on this host. Other nodes and clients reach it there.'),
    roles: Type.Array(choice(['entry', 'middle', 'exit'], { description: '' }), {
      expected: 'a list of roles: entry, middle, exit',
      description: 'What clients may use this node for.',
      minItems: 1,
      uniqueItems: true,
    }),
    keys: Type.Optional(keys),
    state: state('node'),
    control: Type.Optional(control('node')),
    plane: Type.Optional(Plane),
    userspace: Type.Optional(Userspace),
    directory: DirectoryReference,
    cache: Type.Optional(
      choice(['off', 'overlay', 'everywhere'], {
        description:
          'Where this node hands on the consensus it has, at TCP port 9031: to clients that come through a telescope (`overlay`), or to everybody (`everywhere`).',
        default: 'overlay',
      }),
    ),
    stock: Type.Optional(
      section(
        {
          key: text('1..64 of the characters A-Z, a-z, 0-9, ., _, + and -', {
            description:
              'Pre-shared key by which the router takes anonymous peers. It is published, and so proves nothing.',
            pattern: PUBLISHED_KEY_PATTERN,
          }),
          publicKey: Type.Optional(
            path(
              'PEM file of the public key the router signs with (Ed25519, ECDSA P-256 or P-384, RSA). Default: that of ike.pem, when the router was given that key.',
            ),
          ),
        },
        {
          description:
            'This node is a stock IKEv2 router that knows nothing of IPpriv. The daemon then only speaks for it: it publishes the descriptor and keeps it fresh, and its status says which pool and which neighbours to configure on the router.',
        },
      ),
    ),
    bandwidth: Type.Optional(
      integer(1, 1_000_000_000, {
        description:
          'Kilobits per second it wants to carry at most. It is used by what authorities measure, and this can only lower that.',
      }),
    ),
    family: Type.Optional(
      path(
        'Key file of the family, `family.pem` of `ippriv keygen family`, alike at all nodes of one operator: circuits never have two of them.',
      ),
    ),
    token: Type.Optional(
      path(
        'File of a token, `operator.token` of `ippriv keygen token`, that the directory knows: then it wants no work of this node.',
      ),
    ),
    exit: Type.Optional(
      section(
        {
          policy: Type.Optional(
            Type.Array(
              text('an exit rule such as "accept 0.0.0.0/0 tcp 80-443" or "reject 192.0.2.0/24"', {
                description: '',
                format: 'exit-rule',
              }),
              {
                expected: 'a list of exit rules',
                description:
                  'Rules `accept|reject PREFIX [tcp|udp|icmp [PORT[-PORT]]]`; the first match decides and what nothing matches is refused. Without rules everything but the protected destinations is accepted.',
                maxItems: 64,
              },
            ),
          ),
          protect: Type.Optional(
            Type.Boolean({
              expected: 'true or false',
              description:
                'Put the protections in front of the rules: private, loopback, link-local, carrier-grade NAT, multicast and reserved destinations, and tcp port 25, are refused whatever the rules say.',
              default: true,
            }),
          ),
        },
        { description: 'Which destinations an exit connects to. Only with the role `exit`.' },
      ),
    ),
    resumption: Type.Optional(
      section(
        {
          strategy: Type.Optional(
            choice(['off', 'clocked', 'established', 'data'], {
              description:
                'What uses an authentication up: time (`clocked`), connected time (`established`), or octets (`data`). With `off` nobody gets a ticket.',
              default: 'clocked',
            }),
          ),
          limit: Type.Optional(
            integer(1, 1_000_000, {
              description:
                'How much: seconds, or mebibytes for `data`. Default: 7200, or 50 for `data`. `clocked` goes up to 86400, for which time keys of tickets are kept in memory.',
            }),
          ),
        },
        {
          description:
            'Session resumption (RFC 5723): a client that lost its circuit, or a node its tunnel, comes back to this node in two exchanges instead of three and without signatures; new keys follow at once.',
        },
      ),
    ),
    metrics: Type.Optional(Metrics),
    log: Type.Optional(Log),
    debug: Type.Optional(Debug),
  },
  { description: 'An overlay node: `ippriv node --config FILE`.' },
)

export const ClientSchema = section(
  {
    address: Type.Optional(
      address('Source address toward the entry. Default: the one the kernel chooses for that route.'),
    ),
    state: state('client'),
    control: Type.Optional(control('client')),
    plane: Type.Optional(Plane),
    userspace: Type.Optional(Userspace),
    directory: DirectoryReference,
    circuit: Type.Optional(
      section(
        {
          hops: Type.Optional(
            integer(1, 5, {
              description: 'Length of circuits. Fewer than 3 let one node know both ends.',
              default: 3,
            }),
          ),
          cipher: Type.Optional(
            choice(['aes-256-gcm-16', 'aes-128-gcm-16', 'chacha20-poly1305'], {
              description: 'ESP cipher of every layer. Others than the default set this client apart.',
              default: 'aes-256-gcm-16',
            }),
          ),
          path: Type.Optional(
            Type.Array(nodeName(''), {
              expected: 'a list of 1..5 node names',
              description: 'Always these nodes, entry first. For tests: a fixed path is no anonymity.',
              minItems: 1,
              maxItems: 5,
              uniqueItems: true,
            }),
          ),
          spares: Type.Optional(
            integer(0, 4, {
              description:
                'Circuits that stand ready at most, to take over within milliseconds. One is kept, and two where circuits break often.',
              default: 2,
            }),
          ),
          rotation: Type.Optional(
            integer(0, 86_400, {
              description:
                'Seconds, a quarter more or less, after which new connections use another circuit; 0: never. Old ones go on for some four hours, and longer while they are in use. Needs spares.',
              default: 3600,
            }),
          ),
          exit: Type.Optional(
            text('a name of a node or a node id', {
              description: 'Always this exit. Whoever watches it sees all you do, and you stand out there.',
              format: 'node',
            }),
          ),
          exclude: Type.Optional(
            Type.Array(
              text('a name of a node, a node id, or an IPv4 prefix such as 198.51.100.0/24', {
                description: '',
                format: 'node-or-network',
              }),
              {
                expected: 'a list of nodes and networks',
                description:
                  'Never these nodes, nor any in these networks. Countries cannot be named: the consensus knows none. Leaving out much sets this client apart.',
                maxItems: 256,
                uniqueItems: true,
              },
            ),
          ),
          sameNetwork: Type.Optional(
            Type.Boolean({
              expected: 'true or false',
              description:
                'Allow two nodes of one /16 in a circuit. For laboratories: one operator often holds a whole /16.',
              default: false,
            }),
          ),
          onDemand: Type.Optional(
            Type.Boolean({
              expected: 'true or false',
              description:
                'Build no circuit but those that are asked for (`ippriv circuits build`): for measurers (`ippriv measure`).',
              default: false,
            }),
          ),
        },
        { description: 'The circuit that carries everything by default.' },
      ),
    ),
    isolation: Type.Optional(
      Type.Array(
        section({
          name: nodeName('How `ippriv status` calls the group.'),
          user: Type.Optional(
            integer(0, 0xffff_fffe, { description: 'User id of the program whose socket it is.' }),
          ),
          mark: Type.Optional(
            integer(1, 0xffff_ffff, {
              description:
                'Mark of the packet: what a program set by SO_MARK, or a packet filter of yours in its `output` route hook, for a cgroup perhaps.',
            }),
          ),
          destination: Type.Optional(
            text('an IPv4 prefix such as 203.0.113.0/24', {
              description: 'Where it goes.',
              format: 'ipv4-prefix',
            }),
          ),
        }),
        {
          expected: 'a list of groups, each with name and at least one of user, mark and destination',
          description:
            'Groups of traffic that share no circuit with other traffic (docs/paths.md). All that a group says must hold; of several that fit the first counts. What fits none uses the default circuit.',
          maxItems: 8,
        },
      ),
    ),
    metrics: Type.Optional(Metrics),
    log: Type.Optional(Log),
    debug: Type.Optional(Debug),
  },
  { description: 'The client: `ippriv client --config FILE`.' },
)

export const DirectorySchema = section(
  {
    listen: section(
      {
        address: address('IPv4 address to listen on; 0.0.0.0 for all.'),
        port: integer(1, 65535, { description: 'TCP port.' }),
      },
      { description: 'Where nodes and clients reach it.' },
    ),
    keys: Type.Optional(keys),
    state: state('directory'),
    control: Type.Optional(control('directory')),
    poolSpace: Type.Optional(
      text('an IPv4 prefix such as 10.64.0.0/10', {
        description: 'All private addresses of the network. Cannot be changed while nodes are listed.',
        format: 'ipv4-prefix',
        default: '10.64.0.0/10',
      }),
    ),
    poolLength: Type.Optional(
      integer(8, 29, {
        description: 'Prefix length of the pool each node gets: 20 is room for 4,093 circuits.',
        default: 20,
      }),
    ),
    uploads: Type.Optional(
      choice(['own-address', 'anywhere'], {
        description:
          'Whether a node must upload its descriptor from the address it names. With `anywhere` anybody can fill the directory with nodes that do not exist.',
        default: 'own-address',
      }),
    ),
    work: Type.Optional(
      integer(0, MOST_WORK, {
        description:
          'Bits of work that the upload of a newcomer must show; each bit more doubles it, and 20 are about a second of one core. 0: none. With `uploads: anywhere` every upload is that of a newcomer.',
        default: DEFAULT_WORK,
      }),
    ),
    tokens: Type.Optional(
      path(
        'File of the tokens that free from work: a line of `ippriv keygen token` for each. It is read again when it changes.',
      ),
    ),
    authorities: Type.Optional(
      Type.Array(
        section({
          name: nodeName('For people.'),
          key: publicKey('Its public key.'),
          url: directoryUrl('Where it listens.'),
        }),
        {
          expected: 'a list of authorities, each with name, key and url',
          description:
            'All authorities of the network, this one included, alike in every one of them. Absent: this directory decides alone.',
          minItems: 1,
          maxItems: MOST_AUTHORITIES,
        },
      ),
    ),
    threshold: Type.Optional(threshold),
    bootstrap: Type.Optional(
      path(
        'Instead of `authorities` and `threshold`: the bootstrap file of the network (docs/directory.md).',
      ),
    ),
    measurer: Type.Optional(
      section(
        {
          key: publicKey('Its public key, as `ippriv keygen measurer` prints it.'),
          report: path('Where `ippriv measure --out` puts its reports.'),
        },
        {
          description: 'Who measures the speed of nodes for this authority. Not for one that decides alone.',
        },
      ),
    ),
    network: Type.Optional(
      section(
        {
          mtu: Type.Optional(
            integer(SMALLEST_MTU, 9000, {
              description:
                'Octets of the packets inside circuits. No program makes them larger than its default.',
              default: DEFAULT_PARAMETERS.mtu,
            }),
          ),
          profile: Type.Optional(
            integer(1, 65535, {
              description:
                'Number of the IKE profile. Who does not know it goes on with the last document that fits.',
              default: DEFAULT_PARAMETERS.profile,
            }),
          ),
          versions: Type.Optional(
            Type.Array(
              text('software as descriptors name it, such as `ippriv 1.2.3`', {
                description: '',
                pattern: SOFTWARE_PATTERN,
              }),
              {
                expected: 'a list of software',
                description: 'What is recommended; others say so in `ippriv status` and go on. Empty: all.',
                maxItems: MOST_VERSIONS,
                uniqueItems: true,
              },
            ),
          ),
          minimum: Type.Optional(
            text('a version such as 1.2.3', {
              description:
                'The oldest version of ippriv that takes part. Once more than half of all authorities demand it or a higher one, older nodes are neither taken nor listed, and older nodes and clients end (exit code 78; the guard stays). Recommend it first.',
              pattern: VERSION_PATTERN,
            }),
          ),
        },
        {
          description:
            'What this authority proposes; numbers are agreed on by their median. Not for one that decides alone.',
        },
      ),
    ),
    period: Type.Optional(
      integer(1, 604_800, {
        description: 'Seconds for which a consensus is fresh. It is valid for three periods.',
        default: 3600,
      }),
    ),
    metrics: Type.Optional(Metrics),
    log: Type.Optional(Log),
  },
  { description: 'A directory server: `ippriv directory --config FILE`.' },
)

export const SCHEMAS = { node: NodeSchema, client: ClientSchema, directory: DirectorySchema } as const

export type ConfigKind = keyof typeof SCHEMAS
/** As plain JSON Schema, for the validator and the documentation. */
export const schemaOf = (kind: ConfigKind): Schema => SCHEMAS[kind] as unknown as Schema
/** The file as written, checked but not yet completed with defaults. */
export type ConfigFile<K extends ConfigKind> = Static<(typeof SCHEMAS)[K]>
