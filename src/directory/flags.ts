/** Flags as they stand in votes and documents: their first letters, in the order of the alphabet. */
import type { NodeFlag } from '#directory/documents'

/** In this order everywhere. */
export const NODE_FLAGS: readonly NodeFlag[] = ['exit', 'fast', 'guard', 'running', 'stable', 'valid']

export const FLAGS_PATTERN = '^e?f?g?r?s?v?$'

export const formatFlags = (flags: readonly NodeFlag[]): string =>
  NODE_FLAGS.filter((flag) => flags.includes(flag))
    .map((flag) => flag[0])
    .join('')

/** @param letters fit the pattern */
export const parseFlags = (letters: string): NodeFlag[] =>
  NODE_FLAGS.filter((flag) => letters.includes(flag[0]!))
