import type { Command } from 'commander'

const ROLES = {
  node: 'run an overlay node: tunnels to the other nodes, entry, middle or exit of circuits',
  client: 'run the client: everything this host sends goes through a circuit or nowhere',
} as const

/** `ippriv node|client`: the daemons, in the foreground. */
export function registerDaemons(program: Command): void {
  for (const [role, description] of Object.entries(ROLES)) {
    program
      .command(role)
      .description(description)
      .requiredOption('-c, --config <file>', 'configuration (YAML; docs/config.md)')
      .option('--check', 'check the configuration and the keys, then exit')
      .addHelpText('after', '\nSIGTERM or SIGINT ends it cleanly; it leaves nothing of its own behind.')
      .action(async (options: { config: string; check?: boolean }) => {
        if (role === 'node') await (await import('#daemon/node')).runNode(options)
        else await (await import('#daemon/client')).runClient(options)
      })
  }
  const guard = program.command('guard').description("the client's guard without the client")
  for (const [name, description] of [
    ['up', 'nothing leaves this host until a client runs: for boot, before the network is up'],
    ['down', 'remove what a client that died left in force: this host speaks in clear again'],
  ] as const)
    guard
      .command(name)
      .description(description)
      .requiredOption('-c, --config <file>', "the client's configuration (YAML; docs/config.md)")
      .action(async ({ config }: { config: string }) => {
        const { lowerGuard, raiseGuard } = await import('#daemon/guard')
        await (name === 'up' ? raiseGuard(config) : lowerGuard(config))
      })
}
