/** `ippriv tune`: what of this host's network stack matters to the overlay, and sets it. */
import { writeFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
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
    .option('--sysctl-d <file>', 'write the sysctls to be changed as a file for /etc/sysctl.d')
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
    const names = await revert(note)
    if (json) printJson({ reverted: names })
    else print(names.length === 0 ? `nothing to put back: no ${note}` : `put back: ${names.join(', ')}`)
    return EXIT.ok
  }
  const { hasEthtool } = await import('#tune/knobs')
  if (!(await hasEthtool())) progress('ethtool is not installed: offloads and coalescing are not looked at')
  const findings = await inspect(role, options.device)
  if (options.sysctlD !== undefined) {
    await writeFile(options.sysctlD, sysctlFile(role, findings), { mode: 0o644 })
    progress(`wrote ${options.sysctlD}`)
  }
  const { changed, refused } = options.apply ? await apply(findings, note) : { changed: [], refused: [] }
  if (json)
    printJson({
      role,
      findings: findings.map(({ knob: _, ...finding }) => finding),
      changed: changed.map(({ name }) => name),
      refused: refused.map(({ finding, error }) => ({
        name: finding.name,
        code: error.code,
        where: error.where,
      })),
    })
  else print(...report(findings, new Set(changed)))
  for (const { finding, error } of refused) progress(`${finding.name}: ${error.where}`)
  return refused.length > 0 ? EXIT.failed : EXIT.ok
}

function report(findings: readonly Finding[], changed: ReadonlySet<Finding>): string[] {
  const mark = (finding: Finding): string =>
    changed.has(finding)
      ? paint('green', 'changed')
      : finding.state === 'good'
        ? paint('green', 'good')
        : finding.state === 'absent'
          ? paint('dim', 'absent')
          : paint('yellow', finding.state)
  const rows = findings.map((finding) => [
    mark(finding),
    finding.name,
    finding.current ?? '-',
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
