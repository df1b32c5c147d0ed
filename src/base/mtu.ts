/**
 * Sizes that are the same for every client and node (architecture section 3 rule 8): a size of one's own would be
 * an identifier.
 */
export const INNER_MTU = 1280
/** Of TCP over IPv4, without options. */
export const TCP_HEADERS = 40
export const INNER_MSS = INNER_MTU - TCP_HEADERS
