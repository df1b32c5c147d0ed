/** `ippriv tune`: what of this host's network stack matters to the overlay, and sets it. */
import { writeFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import type { IpprivError } from '#base/errors'
import { columns, EXIT, paint, print, printJson, progress } from '#cli/output'
import type { Role } from '#tune/settings'
import type { Finding } from '#tune/tune'

interface TuneOptions {
  readonly role: Role
  readonly device?: readonly string[]
  readonly apply?: boolean
  readonly revert?: boolean
  readonly sysctlD?: string
  readonly note: string
  readonly json?: boolean
}

export function registerTune(program: Command): void {
  program
    .command('tune')
    .description("inspect and set what matters of this host's network stack, explained line by line")
    .addOption(new Option('--role <role>', 'what this host is').choices(['node', 'client']).default('node'))
    .option('--device <names...>', 'only these network devices (default: all but loopback)')
    .addOption(new Option('--apply', 'set what should be changed').conflicts('revert'))
    .option('--revert', 'put back what --apply changed')
    .option(
      '--sysctl-d <file>',
      "write the role's sysctls, those that hold already too, as a file for /etc/sysctl.d",
    )
    .option('--note <file>', 'where --apply keeps what was before', '/var/lib/ippriv/tune.json')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nWithout --apply or --revert nothing is changed. Devices are asked through ethtool(8).',
    )
    .action(async (options: TuneOptions) => {
      process.exitCode = await tune(options)
    })
}

async function tune(options: TuneOptions): Promise<number> {
  const { role, json = false, note } = options
  const { apply, inspect, revert, sysctlFile } = await import('#tune/tune')
  if (options.revert) {
    const { reverted, refused } = await revert(note)
    if (json) printJson({ reverted, refused: refused.map(refusal) })
    else if (reverted.length + refused.length === 0) print(`nothing to put back: no ${note}`)
    else print(`put back: ${reverted.length === 0 ? 'nothing' : reverted.join(', ')}`)
    if (refused.length > 0) progress(`not put back, and kept in ${note}:`)
    return told(refused)
  }
  const { hasEthtool, xfrmProblem } = await import('#tune/knobs')
  if (!(await hasEthtool())) progress('ethtool is not installed: offloads and coalescing are not looked at')
  const problem = role === 'node' ? await xfrmProblem() : undefined
  if (problem !== undefined) progress(`${problem}: the hashing of policies is not looked at`)
  const found = await inspect(role, options.device)
  if (options.sysctlD !== undefined) {
    await writeFile(options.sysctlD, sysctlFile(role, found), { mode: 0o644 })
    progress(`wrote ${options.sysctlD}`)
  }
  const { changed, refused } = options.apply ? await apply(found, note) : { changed: [], refused: [] }
  // What is wrong is said of how it is now.
  const findings = changed.length === 0 ? found : await inspect(role, options.device)
  const refusals = refused.map(({ finding: { name }, error }) => ({ name, error }))
  if (json)
    printJson({
      role,
      findings: findings.map(({ knob: _, ...finding }) => finding),
      changed: changed.map(({ name }) => name),
      refused: refusals.map(refusal),
    })
  else print(...report(findings, new Map(changed.map(({ name, current }) => [name, current]))))
  return told(refusals)
}

interface Refusal {
  readonly name: string
  readonly error: IpprivError
}

const refusal = ({ name, error: { code, where } }: Refusal) => ({ name, code, where })

function told(refused: readonly Refusal[]): number {
  for (const { name, error } of refused) progress(`${name}: ${error.where}`)
  return refused.length > 0 ? EXIT.failed : EXIT.ok
}

/** `before`: what those that were changed had been. */
function report(findings: readonly Finding[], before: ReadonlyMap<string, string | null>): string[] {
  const mark = ({ name, state }: Finding): string => {
    if (state === 'good') return paint('green', before.has(name) ? 'changed' : 'good')
    return state === 'absent' ? paint('dim', 'absent') : paint('yellow', state)
  }
  const now = ({ name, current }: Finding): string =>
    before.has(name) ? `${before.get(name)} -> ${current}` : (current ?? '-')
  const rows = findings.map((finding) => [
    mark(finding),
    finding.name,
    now(finding),
    finding.wanted,
    finding.why,
  ])
  const tags = findings.filter(
    ({ state, distinguishes }) =>
      (state === 'change' || state === 'attention') && distinguishes !== undefined,
  )
  return [
    ...columns(rows, ['', 'setting', 'now', 'wanted', 'why']),
    ...(tags.length === 0 ? [] : ['', paint('bold', 'This client can be told from others:')]),
    ...tags.map(({ name, distinguishes }) => `  ${name}: ${distinguishes}`),
  ]
}
