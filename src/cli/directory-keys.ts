import type { Command } from 'commander'
import { columns, print, printJson } from '#cli/output'

/** `ippriv directory certify`: a signing key for a while, so that the key by which an authority is known stays offline. */
export function registerDirectoryKeys(program: Command): void {
  const directory = program.commands.find((command) => command.name() === 'directory')
  directory
    ?.command('certify')
    .description('make a signing key, certified for a while by the authority key, which may then go offline')
    .requiredOption('--key <file>', 'authority.pem')
    .requiredOption('--dir <directory>', "the daemon's key directory: signing.pem and signing.cert go there")
    .option('--days <n>', 'for how long, 1 to 400', Number, 90)
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nRun it again before it ends, with another directory, and put both files in place together; then restart the daemon.',
    )
    .action(async (options: { key: string; dir: string; days: number; json?: boolean }) => {
      const { certifySigningKey } = await import('#daemon/signing-key')
      const made = await certifySigningKey(options)
      if (options.json) printJson(made)
      else print(...columns(Object.entries(made)))
    })
}
