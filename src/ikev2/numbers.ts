/**
 * The number spaces of IKEv2 (IANA "IKEv2 Parameters"), one registry each. A registry holds the numbers and
 * prints them: what appears in an event is `IKE_AUTH` or `exchange type 99`, never a bare number.
 */

type Numbers = Readonly<Record<string, number>>

export interface Registry<T extends Numbers> {
  readonly number: T
  nameOf(value: number): string
}

function registry<const T extends Numbers>(title: string, number: T): Registry<T> {
  const names = new Map(Object.entries(number).map(([name, value]) => [value, name]))
  return { number, nameOf: (value) => names.get(value) ?? `${title} ${value}` }
}

/** RFC 7296 section 3.1. */
export const EXCHANGE = registry('exchange type', {
  IKE_SA_INIT: 34,
  IKE_AUTH: 35,
  CREATE_CHILD_SA: 36,
  INFORMATIONAL: 37,
  IKE_SESSION_RESUME: 38, // RFC 5723
  IKE_INTERMEDIATE: 43, // RFC 9242
  IKE_FOLLOWUP_KE: 44, // RFC 9370
})

/** RFC 7296 section 3.2. */
export const PAYLOAD = registry('payload type', {
  NONE: 0,
  SA: 33,
  KE: 34,
  IDi: 35,
  IDr: 36,
  CERT: 37,
  CERTREQ: 38,
  AUTH: 39,
  Nonce: 40,
  Notify: 41,
  Delete: 42,
  Vendor: 43,
  TSi: 44,
  TSr: 45,
  SK: 46,
  CP: 47,
  EAP: 48,
  SKF: 53, // RFC 7383
  PS: 54, // RFC 8019
})

/** RFC 7296 section 3.3.1. */
export const PROTOCOL = registry('protocol', { NONE: 0, IKE: 1, AH: 2, ESP: 3 })

/** RFC 7296 section 3.3.2; ADDKE1 to ADDKE7 (RFC 9370) are 6 to 12. */
export const TRANSFORM = registry('transform type', {
  ENCR: 1,
  PRF: 2,
  INTEG: 3,
  KE: 4,
  SN: 5,
  ADDKE1: 6,
  ADDKE7: 12,
})

export const PRF = registry('PRF', { HMAC_SHA2_256: 5, HMAC_SHA2_384: 6, HMAC_SHA2_512: 7 })

export const GROUP = registry('key exchange method', { P256: 19, X25519: 31, MLKEM768: 36 })

/** Transform type 5 (RFC 9827): 32-bit sequential numbers, or the low half of 64-bit ones. */
export const SEQUENCE_NUMBERS = registry('sequence numbers', { SHORT: 0, EXTENDED: 1 })

/** RFC 7296 section 3.3.5: the one transform attribute there is. */
export const KEY_LENGTH_ATTRIBUTE = 14

/** RFC 7296 section 3.5, RFC 7619 section 2.2. */
export const ID_TYPE = registry('ID type', {
  IPV4_ADDR: 1,
  FQDN: 2,
  RFC822_ADDR: 3,
  IPV6_ADDR: 5,
  KEY_ID: 11,
  NULL: 13,
})

/** RFC 7296 section 3.8, RFC 7427, RFC 7619. */
export const AUTH_METHOD = registry('authentication method', { SHARED_KEY: 2, SIGNATURE: 14, NULL: 13 })

/** RFC 7296 section 3.6, RFC 7670 section 3. */
export const CERT_ENCODING = registry('certificate encoding', { X509_SIGNATURE: 4, RAW_PUBLIC_KEY: 15 })

/** RFC 7427 section 7, RFC 8420 section 3. */
export const HASH_ALGORITHM = registry('hash algorithm', {
  SHA2_256: 2,
  SHA2_384: 3,
  SHA2_512: 4,
  IDENTITY: 5,
})

/** RFC 7296 section 3.10.1. Below 16384 they are errors, above they are status. */
export const NOTIFY = registry('notify', {
  UNSUPPORTED_CRITICAL_PAYLOAD: 1,
  INVALID_IKE_SPI: 4,
  INVALID_MAJOR_VERSION: 5,
  INVALID_SYNTAX: 7,
  INVALID_MESSAGE_ID: 9,
  INVALID_SPI: 11,
  NO_PROPOSAL_CHOSEN: 14,
  INVALID_KE_PAYLOAD: 17,
  AUTHENTICATION_FAILED: 24,
  SINGLE_PAIR_REQUIRED: 34,
  NO_ADDITIONAL_SAS: 35,
  INTERNAL_ADDRESS_FAILURE: 36,
  FAILED_CP_REQUIRED: 37,
  TS_UNACCEPTABLE: 38,
  INVALID_SELECTORS: 39,
  UNACCEPTABLE_ADDRESSES: 40,
  UNEXPECTED_NAT_DETECTED: 41,
  TEMPORARY_FAILURE: 43,
  CHILD_SA_NOT_FOUND: 44,
  STATE_NOT_FOUND: 47, // RFC 9370
  INITIAL_CONTACT: 16384,
  NAT_DETECTION_SOURCE_IP: 16388,
  NAT_DETECTION_DESTINATION_IP: 16389,
  COOKIE: 16390,
  REKEY_SA: 16393,
  MOBIKE_SUPPORTED: 16396,
  ADDITIONAL_IP4_ADDRESS: 16397,
  ADDITIONAL_IP6_ADDRESS: 16398,
  UPDATE_SA_ADDRESSES: 16400,
  COOKIE2: 16401,
  NO_NATS_ALLOWED: 16402,
  TICKET_LT_OPAQUE: 16409, // RFC 5723
  TICKET_REQUEST: 16410,
  TICKET_ACK: 16411,
  TICKET_NACK: 16412,
  TICKET_OPAQUE: 16413,
  IKEV2_FRAGMENTATION_SUPPORTED: 16430,
  SIGNATURE_HASH_ALGORITHMS: 16431,
  PUZZLE: 16434, // RFC 8019
  INTERMEDIATE_EXCHANGE_SUPPORTED: 16438,
  ADDITIONAL_KEY_EXCHANGE: 16441, // RFC 9370
  SUPPORTED_AUTH_METHODS: 16443, // RFC 9593
  IKE_SA_INIT_FULL_TRANSCRIPT_AUTH: 16447, // draft-ietf-ipsecme-ikev2-downgrade-prevention-08
})

/** RFC 7296 section 3.15. */
export const CP_TYPE = registry('configuration type', { REQUEST: 1, REPLY: 2, SET: 3, ACK: 4 })
export const CP_ATTRIBUTE = registry('configuration attribute', {
  INTERNAL_IP4_ADDRESS: 1,
  INTERNAL_IP4_NETMASK: 2,
  INTERNAL_IP4_DNS: 3,
  INTERNAL_IP6_ADDRESS: 8,
})

/** RFC 7296 section 3.13.1. */
export const TS_TYPE = registry('selector type', { IPV4_ADDR_RANGE: 7, IPV6_ADDR_RANGE: 8 })
