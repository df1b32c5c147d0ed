import { writeFile } from 'node:fs/promises'
import { cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { isMet, type Report, type Table, type Target } from './bench.ts'
import { draw } from './plot.ts'
import { figure } from './stats.ts'

/** Writes `NAME.json` and the plots. Returns the files written. */
export async function keep(name: string, report: Report, out: string): Promise<string[]> {
  const json = join(out, `${name}.json`)
  await writeFile(json, `${JSON.stringify(asJson(report), null, 2)}\n`)
  const plots = await Promise.all((report.plots ?? []).map((plot) => draw(plot, out)))
  return [json, ...plots.flat()]
}

/** The report with the machine it was made on. */
export const asJson = ({ title, tables, targets, notes, samples }: Report): object => ({
  title,
  machine: machine(),
  targets: targets.map((target) => ({ ...target, met: isMet(target) })),
  tables,
  notes: notes ?? [],
  samples,
})

/** For people. */
export function print(report: Report): string {
  const { processors, memory, kernel } = machine()
  const head = `${report.title}\n${processors}, ${memory}, Linux ${kernel}, Node.js ${process.version}`
  const targets = report.targets.length === 0 ? [] : [layout(targetTable(report.targets))]
  const notes = (report.notes ?? []).map((note) => `- ${note}`).join('\n')
  return [head, ...report.tables.map(layout), ...targets, notes].filter((part) => part !== '').join('\n\n')
}

const targetTable = (targets: readonly Target[]): Table => ({
  title: 'targets',
  columns: ['', 'what', 'measured', 'wanted'],
  rows: targets.map((target) => [
    isMet(target) ? 'met' : 'MISSED',
    target.what,
    `${figure(target.measured)}${target.unit ?? ''}`,
    `at ${target.sense} ${target.bound}${target.unit ?? ''}`,
  ]),
})

/** Columns of numbers stand to the right. */
function layout({ title, columns, rows }: Table): string {
  const cells = rows.map((row) => row.map((cell) => (typeof cell === 'number' ? figure(cell) : cell)))
  const widths = columns.map((column, i) =>
    Math.max(column.length, ...cells.map((row) => row[i]?.length ?? 0)),
  )
  const isNumeric = columns.map((_, i) => rows.some((row) => typeof row[i] === 'number'))
  const line = (row: readonly string[]) =>
    widths
      .map((width, i) => (isNumeric[i] ? (row[i] ?? '').padStart(width) : (row[i] ?? '').padEnd(width)))
      .join('  ')
      .trimEnd()
  return [title, line(columns), line(widths.map((width) => '-'.repeat(width))), ...cells.map(line)].join('\n')
}

function machine(): { processors: string; memory: string; kernel: string } {
  const all = cpus()
  return {
    processors: `${all.length} x ${all[0]?.model ?? 'unknown processor'}`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    kernel: release(),
  }
}
