import type { Command } from 'commander'
import { toHex } from '#base/bytes'
import { columns, print, printJson } from '#cli/output'

interface KeygenOptions {
  readonly dir: string
  readonly json?: boolean
}

/** `ippriv keygen node|directory|measurer|family|token`: makes key files; never overwrites one. */
export function registerKeygen(program: Command): void {
  const keygen = program.command('keygen').description('make the keys of a node or a directory')
  keygen
    .command('node')
    .description('write identity.pem, ike.pem and ecdsa.pem, print the node id and the public keys')
    .requiredOption('--dir <directory>', 'where the key files go; created when missing')
    .option('--json', 'print JSON')
    .action(async ({ dir, json }: KeygenOptions) => {
      const { createNodeKeys, ecdsaSpki } = await import('#config/keys')
      const keys = await createNodeKeys(dir)
      const shown = {
        nodeId: keys.nodeId,
        identityKey: toHex(keys.identity.publicKey),
        ikeKey: toHex(keys.ike.publicKey),
        ecdsaKey: toHex(ecdsaSpki(keys.ecdsa)),
      }
      show(shown, json)
    })
  keygen
    .command('directory')
    .description('write authority.pem, print the public key that nodes and clients must be configured with')
    .requiredOption('--dir <directory>', 'where the key file goes; created when missing')
    .option('--json', 'print JSON')
    .action(async ({ dir, json }: KeygenOptions) => {
      const { createAuthorityKey } = await import('#config/keys')
      show({ publicKey: toHex((await createAuthorityKey(dir)).publicKey) }, json)
    })
  keygen
    .command('measurer')
    .description('write measurer.pem, print the public key that an authority is configured with')
    .requiredOption('--dir <directory>', 'where the key file goes; created when missing')
    .option('--json', 'print JSON')
    .action(async ({ dir, json }: KeygenOptions) => {
      const { createMeasurerKey } = await import('#config/keys')
      show({ publicKey: toHex((await createMeasurerKey(dir)).publicKey) }, json)
    })
  keygen
    .command('family')
    .description('write family.pem, for the nodes of one operator, and print its public key')
    .requiredOption('--dir <directory>', 'where the key file goes; created when missing')
    .option('--json', 'print JSON')
    .action(async ({ dir, json }: KeygenOptions) => {
      const { createFamilyKey } = await import('#config/keys')
      show({ family: toHex((await createFamilyKey(dir)).publicKey) }, json)
    })
  keygen
    .command('token')
    .description("write operator.token, for nodes, and print its line in a directory's file of tokens")
    .requiredOption('--dir <directory>', 'where the file goes; created when missing')
    .option('--json', 'print JSON')
    .action(async ({ dir, json }: KeygenOptions) => {
      show(await (await import('#daemon/operator-token')).issueToken(dir), json)
    })
}

function show(values: Readonly<Record<string, string>>, json: boolean | undefined): void {
  if (json) printJson(values)
  else print(...columns(Object.entries(values)))
}
