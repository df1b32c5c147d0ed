/**
 * Logs of connections, as CSV:
 *
 *     user,start,end,bytes
 *     u17,2006-08-19T08:00:00Z,2006-08-19T09:10:00Z,1048576
 *     u17,1155981600,1155985200,2048
 *
 * Times are ISO 8601, or seconds since any moment, the same for all. No quotes: names have no commas. Lines need not be
 * in order.
 */
import { IpprivError } from '#base/errors'

export interface Connection {
  readonly user: string
  /** Seconds. */
  readonly start: number
  readonly end: number
  readonly bytes: number
}

const HEADER = 'user,start,end,bytes'

/** @throws IpprivError IPP_LOG_INVALID with file, line, column and what was expected there. */
export function parseLog(text: string, file: string): Connection[] {
  const lines = text.split(/\r?\n/)
  if (lines[0]?.replaceAll(' ', '').toLowerCase() !== HEADER)
    throw invalid(file, 1, 1, `the header ${HEADER}`)
  return lines.slice(1).flatMap((line, index) => (line === '' ? [] : [parseLine(line, file, index + 2)]))
}

export const formatLog = (connections: readonly Connection[]): string =>
  [HEADER, ...connections.map(({ user, start, end, bytes }) => `${user},${start},${end},${bytes}`), ''].join(
    '\n',
  )

function parseLine(line: string, file: string, number: number): Connection {
  const fields = line.split(',')
  /** Where a field begins, from 1. */
  const columnOf = (index: number): number =>
    fields.slice(0, index).reduce((column, field) => column + field.length + 1, 1)
  const fail = (index: number, expected: string): never => {
    throw invalid(file, number, columnOf(index), expected)
  }
  if (fields.length !== 4) fail(Math.min(fields.length, 4), `4 fields (${HEADER}), not ${fields.length}`)
  const [user, from, to, volume] = fields.map((field) => field.trim()) as [string, string, string, string]
  if (user === '') fail(0, 'a user')
  const start = parseTime(from) ?? fail(1, 'a time: ISO 8601, or seconds')
  const end = parseTime(to) ?? fail(2, 'a time: ISO 8601, or seconds')
  if (end < start) fail(2, 'an end that is not before the start')
  if (!/^\d{1,15}$/.test(volume)) fail(3, 'a number of bytes')
  return { user, start, end, bytes: Number(volume) }
}

function parseTime(text: string): number | undefined {
  if (/^\d{1,12}(\.\d+)?$/.test(text)) return Number(text)
  if (!/^\d{4}-\d\d-\d\d([T ][\d:.]+(Z|[+-]\d\d:?\d\d)?)?$/.test(text)) return undefined
  const milliseconds = Date.parse(text)
  return Number.isNaN(milliseconds) ? undefined : milliseconds / 1000
}

const invalid = (file: string, line: number, column: number, expected: string): IpprivError =>
  new IpprivError('IPP_LOG_INVALID', `${file}:${line}:${column}: expected ${expected}`)
