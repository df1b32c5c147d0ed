/** What every command prints and how it ends. Results go to stdout, everything else to stderr. */
import { stripVTControlCharacters, styleText } from 'node:util'
import { errorLine, exitCodeOf } from '#base/errors'

/** Exit codes of all commands; `exitCodeOf` has those of errors. */
export const EXIT = { ok: 0, failed: 1, usage: 2, unread: 141 } as const

/** Whoever reads the output may have enough, as head(1) has: then we end as SIGPIPE ends others, without a word. */
export function endWhenUnread(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit(EXIT.unread)
  })
}

/** Tells the one line of an error and sets the exit code. */
export function fail(error: unknown): void {
  process.stderr.write(`${paint('red', 'ippriv:', process.stderr)} ${errorLine(error)}\n`)
  process.exitCode = exitCodeOf(error)
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
}

export function print(...lines: readonly string[]): void {
  process.stdout.write(lines.map((line) => `${line}\n`).join(''))
}

/** A line about what is going on, for the person who waits. */
export function progress(text: string): void {
  process.stderr.write(`${text}\n`)
}

export type Colour = 'red' | 'green' | 'yellow' | 'cyan' | 'bold' | 'dim'

/** Coloured where the stream is a terminal that wants it (NO_COLOR, FORCE_COLOR and so on are heeded). */
export function paint(colour: Colour, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return styleText(colour, text, { stream })
}

/**
 * Rows as aligned columns, two spaces apart, no trailing blanks; `header` is dimmed. Cells may carry colours.
 * Plain text, so that `awk` and `grep` can read it.
 */
export function columns(rows: readonly (readonly string[])[], header?: readonly string[]): string[] {
  const all = header === undefined ? rows : [header, ...rows]
  const widths: number[] = []
  for (const row of all)
    for (const [index, cell] of row.entries())
      widths[index] = Math.max(widths[index] ?? 0, visibleLength(cell))
  return all.map((row, number) => {
    const line = row
      .map((cell, index) =>
        index === row.length - 1 ? cell : cell + ' '.repeat(widths[index]! - visibleLength(cell)),
      )
      .join('  ')
      .trimEnd()
    return number === 0 && header !== undefined ? paint('dim', line) : line
  })
}

/** `12.3 MiB`, `940 B`. */
export function bytesText(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = count
  let unit = 0
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}

const visibleLength = (text: string): number => stripVTControlCharacters(text).length
