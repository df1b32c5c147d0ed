/**
 * The error table: every failure a person or a program can see has one code here, with what happened and
 * what to do. `docs/errors.md` is checked against it. Rows are grouped by subsystem; keep a group together.
 */
export const ERRORS = {
  // config and command line
  IPP_CONFIG_UNREADABLE: ['cannot read the configuration file', 'check the path and its permissions'],
  IPP_CONFIG_SYNTAX: ['the configuration file is not valid YAML', 'correct the line named'],
  IPP_CONFIG_INVALID: [
    'a configuration value is not acceptable',
    'correct the value at the line and column named',
  ],
  IPP_KEY_UNREADABLE: ['cannot read a key file', 'create it with `ippriv keygen`, or correct the path'],
  IPP_KEY_INVALID: [
    'a key file does not hold a key of the expected kind',
    'create it anew with `ippriv keygen`',
  ],
  IPP_LOG_UNREADABLE: ['cannot read a log of connections', 'check the path and its permissions'],
  IPP_LOG_INVALID: [
    'a log of connections is malformed',
    'correct the line named; see `ippriv replay --help`',
  ],
  IPP_STATE_UNUSABLE: [
    'the state directory cannot be used',
    'check that it is writable, has room, and no other daemon uses it',
  ],
  IPP_CONTROL_UNREACHABLE: [
    'no daemon answers on the control socket',
    'start the daemon, or name its socket with --socket',
  ],
  IPP_CONTROL_BUSY: [
    'another daemon already answers on the control socket',
    'stop it, or configure another socket',
  ],
  // host
  IPP_HOST_PRIVILEGE: [
    'a needed privilege is missing',
    'run as root, or grant CAP_NET_ADMIN and CAP_NET_RAW',
  ],
  IPP_HOST_KERNEL: ['the kernel lacks a needed feature', 'run `ippriv doctor` to see what is missing'],
  IPP_HOST_TOOL: ['a needed program is missing or failed', 'install it, or look at the text it printed'],
  IPP_HOST_PORT_IN_USE: [
    'an address or port is already in use',
    'stop the other program, or configure another port',
  ],
  IPP_HOST_ADDRESS: [
    'an address is not configured on this host',
    'configure the address on an interface, or correct the config',
  ],
  IPP_HOST_NETLINK: [
    'the kernel refused a netlink request',
    'see the request and errno named; `ippriv doctor` may know why',
  ],
  IPP_HOST_ROUTE: ['there is no route to an address', "check the host's default route"],
  IPP_WORKER_FAILED: [
    'a thread that computes handshakes ended',
    'peers ask again and a new one is started; report it with the log',
  ],
  // data plane
  IPP_PLANE_UNAVAILABLE: [
    'the chosen data plane cannot run on this kernel',
    'choose `plane: auto`, or run `ippriv doctor`',
  ],
  IPP_PLANE_OPERATION: ['the data plane refused an operation', 'see the operation named'],
  IPP_PLANE_DEAD: [
    'the data plane stopped working',
    'the daemon stays fail-closed; see the log, then restart it',
  ],
  // ikev2
  IPP_IKE_MALFORMED: ['a peer sent a malformed IKE message', 'nothing: it was dropped'],
  IPP_IKE_NO_PROPOSAL: ['no proposal was acceptable', 'use a peer that supports the IPpriv profile'],
  IPP_IKE_AUTH_FAILED: [
    'the peer did not prove its identity',
    'do not use this peer; its key is not the one in the directory',
  ],
  IPP_IKE_REFUSED: [
    'the peer does not accept us',
    'it may have just started and not be listed yet; another node, or the same later, will be tried',
  ],
  IPP_IKE_TS_UNACCEPTABLE: ['the peer changed the traffic selectors', 'do not use this peer'],
  IPP_IKE_ADDRESS_REFUSED: [
    'the peer lent no address, or a wrong one',
    'its pool may be exhausted; another node will be tried',
  ],
  IPP_IKE_TIMEOUT: ['the peer does not answer', 'check that it runs and that UDP 500 and ESP reach it'],
  IPP_IKE_DELETED: ['the peer deleted the SA', 'nothing: it will be built again when needed'],
  IPP_IKE_PROTOCOL: ['the peer broke the protocol', 'do not use this peer'],
  IPP_IKE_LIMIT: ['too many half-open IKE SAs', 'nothing: requests are refused until some complete'],
  IPP_IKE_CLOSED: ['the IKE SA was closed by us', 'nothing'],
  // telescope and paths
  IPP_PATH_NONE: [
    'no path satisfies the constraints',
    'wait for more nodes in the consensus, or relax the constraints',
  ],
  IPP_PATH_UNKNOWN_NODE: [
    'a node of the wanted path is not in the consensus',
    'name nodes as `ippriv status` shows them',
  ],
  IPP_HOP_ADDRESS_CONFLICT: [
    'a hop lent an address outside its pool or one already in use',
    'do not use this node',
  ],
  IPP_GUARD_DOWN: [
    'the guard of this host does not stand',
    'nothing is built before it does; see the log for what could not be installed',
  ],
  IPP_CIRCUIT_CLOSED: ['the circuit was closed before it was open', 'nothing: it was asked for'],
  IPP_CIRCUIT_UNKNOWN: ['there is no such circuit', 'list them with `ippriv circuits`'],
  // overlay and nat
  IPP_NAT_POOL_EXHAUSTED: [
    'the private-address pool is exhausted',
    'wait for leases to end, or get a larger pool',
  ],
  IPP_OVERLAY_NOT_LISTED: [
    'this node is not in the consensus',
    'check that its descriptor was accepted by the directory',
  ],
  IPP_OVERLAY_DOWN: [
    'there is no overlay tunnel to this peer',
    '`ippriv status` names the peers; one that is connecting may be up soon',
  ],
  IPP_OVERLAY_FOREIGN_SOURCE: [
    "a client came from a pool that is not its neighbour's",
    'nothing: it was refused',
  ],
  // directory
  IPP_DIR_UNREACHABLE: ['the directory does not answer', 'check the address and that it runs'],
  IPP_DIR_BAD_SIGNATURE: ['a signature does not verify', 'do not use this document; check the pinned key'],
  IPP_DIR_MALFORMED: ['a directory document is malformed', 'see the place named'],
  IPP_DIR_EXPIRED: [
    'a directory document is outside its validity period',
    'fetch a fresh one; check the clock',
  ],
  IPP_DIR_REPLAYED: ['a directory document is older than one already seen', 'nothing: it was refused'],
  IPP_DIR_OVERSIZED: ['a directory document is too large', 'nothing: it was refused'],
  IPP_DIR_DIFF: [
    'a diff does not fit the document it was asked for',
    'nothing: it was refused, and the whole document is fetched',
  ],
  IPP_DIR_IDENTITY: ['a document does not belong to the identity that signed it', 'nothing: it was refused'],
  IPP_DIR_POOL: ['pools overlap or none is left', "the directory operator must enlarge the network's prefix"],
  IPP_DIR_CONFLICT: [
    'another node already holds this name or address',
    'choose another name, or correct the address',
  ],
  IPP_DIR_SOURCE: [
    'a descriptor was not uploaded from the address it names',
    'upload from the node itself, or ask the directory operator to set `uploads: anywhere`',
  ],
  IPP_DIR_WORK: [
    'a newcomer brought no proof of work, or too little',
    'nodes do it by themselves, up to 24 bits; or ask the directory operator for a token',
  ],
  IPP_DIR_PROFILE: [
    'the network speaks an IKE profile that this program does not know',
    'install a version that the network recommends; until then the last document that fits is used',
  ],
  IPP_DIR_OUTDATED: [
    'the network takes no software that is so old',
    'install the version that is named, or a later one, and start it again',
  ],
  IPP_DIR_CROWDED: ['a network has enough nodes already', 'use an address of another /24'],
  IPP_DIR_RATE_LIMITED: ['too many requests from one address', 'wait a while, then try again'],
  IPP_DIR_NO_DOCUMENT: [
    'the authorities have made no document yet',
    'wait for the start of the next period; `ippriv status` of the authorities names who is missing',
  ],
  IPP_DIR_NO_RESOURCE: [
    'the directory has no such resource',
    'the resources are /v1/descriptor, /v1/consensus, /v1/consensus/diff/<name> and /v1/health',
  ],
  IPP_INTERNAL: ['a defect in ippriv', 'please report it with the log'],
} as const satisfies Record<string, readonly [what: string, todo: string]>

export type ErrorCode = keyof typeof ERRORS

/** A failure with a code of the table. `where` says what exactly and may be shown to a person. */
export class IpprivError extends Error {
  readonly code: ErrorCode
  readonly where: string

  constructor(code: ErrorCode, where: string, options?: ErrorOptions) {
    super(`${ERRORS[code][0]}: ${where}`, options)
    this.name = 'IpprivError'
    this.code = code
    this.where = where
  }

  /** One line: what, where, what to do. */
  get line(): string {
    return `${this.message} (${ERRORS[this.code][1]}) [${this.code}]`
  }
}

/** The one line for anything that was thrown. */
export function errorLine(error: unknown): string {
  if (error instanceof IpprivError) return error.line
  return error instanceof Error ? `${error.message} [IPP_INTERNAL]` : `${String(error)} [IPP_INTERNAL]`
}

/**
 * How a program ends that fails: 2 for what is wrong with what it was given, 78 (EX_CONFIG) when the network takes no such
 * program, so that a supervisor need not try again, else 1.
 */
export function exitCodeOf(error: unknown): 1 | 2 | 78 {
  if (!(error instanceof IpprivError)) return 1
  if (error.code === 'IPP_DIR_OUTDATED') return 78
  return /^IPP_(CONFIG|KEY|LOG)_/.test(error.code) ? 2 : 1
}
