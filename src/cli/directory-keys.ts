import { resolve } from 'node:path'
import type { Command } from 'commander'
import { columns, print, printJson } from '#cli/output'

/**
 * `ippriv directory certify`: a signing key for a while, so that the key by which an authority is known stays offline;
 * `backup` and `restore`: its memory as one file.
 */
export function registerDirectoryKeys(program: Command): void {
  const directory = program.commands.find((command) => command.name() === 'directory')
  directory
    ?.command('backup')
    .description('write what the directory must not forget into one file; it may run meanwhile')
    .requiredOption('-c, --config <file>', 'its configuration')
    .requiredOption('--out <file>', 'the backup; replaced as a whole. Private keys are not in it')
    .action(async ({ config, out }: { config: string; out: string }) => {
      const { backupDirectory } = await import('#daemon/directory')
      print(`${await backupDirectory(config, resolve(out))} entries`)
    })
  directory
    ?.command('restore')
    .description('make the memory of a directory anew from a backup; the directory must not run')
    .requiredOption('-c, --config <file>', 'its configuration')
    .requiredOption('--from <file>', 'the backup')
    .addHelpText(
      'after',
      '\nAn authority sits out the period in which it was restored, so that it says nothing twice.',
    )
    .action(async ({ config, from }: { config: string; from: string }) => {
      const { restoreDirectory } = await import('#daemon/directory')
      print(`${await restoreDirectory(config, from)} entries`)
    })
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
