import { type Command, Option } from 'commander'
import { ESP_CIPHERS } from '#crypto/suites'
import type { DemoOptions } from '#demo/demo'

/** `ippriv demo`: a whole network on this host, a circuit through it, and the proof that it keeps its promises. */
export function registerDemo(program: Command): void {
  program
    .command('demo')
    .description(
      'build a small internet in network namespaces, run a circuit through it, prove what each party saw',
    )
    .option('--json', 'print one JSON object instead of the report', false)
    .addOption(
      new Option('--plane <plane>', 'who does ESP; xfrm boots a User-Mode Linux where this kernel cannot')
        .choices(['auto', 'xfrm', 'userspace'])
        .default('auto'),
    )
    .option('--keep', 'leave everything up and print commands to look around', false)
    .option('--down', 'take down what --keep left up, then exit')
    .addOption(new Option('--hops <n>', 'hops of the circuit, 1 to 5').default(3).argParser(Number))
    .addOption(
      new Option('--cipher <name>', 'ESP cipher of the circuit')
        .choices(Object.keys(ESP_CIPHERS))
        .default('aes-256-gcm-16'),
    )
    .option('--out <dir>', 'where captures, key logs and daemon logs go', 'demo-out')
    .addOption(
      new Option('--loss <percent>', 'lose packets at random between any two hosts')
        .default(0)
        .argParser(Number),
    )
    .addOption(
      new Option('--size <MiB>', 'size of the large download (default: 64, with --loss 4)').argParser(Number),
    )
    .addOption(
      new Option(
        '--authorities <n>',
        'directory authorities; with several, as many as may fail are killed in the middle',
      )
        .default(1)
        .argParser(Number),
    )
    .addOption(new Option('--nodes <n>', 'nodes of the overlay').default(5).argParser(Number))
    .addHelpText('after', '\nNeeds root. Exit code 0 only if every check held. Ctrl-C takes everything down.')
    .action(async (options: DemoOptions & { down?: boolean }) => {
      const { runDemo, takeDown } = await import('#demo/demo')
      process.exitCode = options.down ? await takeDown() : await runDemo(options)
    })
}
