import { type Command, InvalidArgumentError } from 'commander'
import { columns, paint, print, printJson } from '#cli/output'
import type { Draft } from '#daemon/ceremony'
import { controlRequest } from '#linux/control'

/** `ippriv directory [run|init|draft|add|remove|sign|adopt|show|status|health]`: everything for who runs an authority. */
export function registerDirectory(program: Command): void {
  const directory = program
    .command('directory')
    .description('run a directory server or authority, and everything for who runs one')
    .addHelpText('after', CEREMONY)
  directory
    .command('run', { isDefault: true })
    .description('collect descriptors, publish the signed consensus (default)')
    .requiredOption('-c, --config <file>', 'configuration (YAML; docs/config.md)')
    .option('--check', 'check the configuration and the keys, then exit')
    .addHelpText('after', '\nSIGTERM or SIGINT ends it cleanly; it leaves nothing of its own behind.')
    .action(async (options: { config: string; check?: boolean }) => {
      await (await import('#daemon/directory')).runDirectory(options)
    })
  registerCeremony(directory)
  registerReports(directory)
}

const CEREMONY = `
How authorities begin:
  ippriv directory init --name ash --url http://198.18.50.1:9030 --dir /etc/ippriv    each; the card ash.json goes to the others
  ippriv directory draft --threshold 3 --out bootstrap.draft *.json                    one of them, with all cards
  ippriv directory sign --key /etc/ippriv/keys/authority.pem bootstrap.draft           each, on the draft or a copy of it
  ippriv directory adopt --bootstrap bootstrap bootstrap.draft...                      when enough have signed
Later, add or remove makes another draft; it needs as many of the old authorities as of the new. Nodes, clients and
authorities are given the file "bootstrap", which says by itself that it is right. sign needs no network.`

function registerCeremony(directory: Command): void {
  const command = (name: string, description: string): Command =>
    directory.command(name).description(description).option('--json', 'print JSON')
  command('init', 'make the key of an authority, its configuration, and the card that the others need')
    .requiredOption('--name <name>', 'for people: 1..19 of a-z, 0-9 and -')
    .requiredOption('--url <url>', 'where the others, nodes and clients will reach it: http://ADDRESS:PORT')
    .requiredOption('--dir <directory>', 'where the files go; nothing in it is overwritten')
    .action(async (options: { name: string; url: string; dir: string; json?: boolean }) => {
      const card = await (await import('#daemon/ceremony')).initAuthority(options)
      if (options.json) printJson(card)
      else print(...columns(Object.entries(card)))
    })
  command('draft', 'the first bootstrap document, of the authorities whose cards are given')
    .argument('<cards...>', 'files that init made')
    .requiredOption('--threshold <n>', 'so many must sign a consensus: more than half', count)
    .requiredOption('--out <file>', 'where the draft goes')
    .action(
      async (
        cards: string[],
        { threshold, out, json }: { threshold: number; out: string; json?: boolean },
      ) => {
        const { draftBootstrap } = await import('#daemon/ceremony')
        await save(out, await draftBootstrap(cards, threshold), json)
      },
    )
  const change = (name: string, description: string): Command =>
    command(name, description)
      .requiredOption('--bootstrap <file>', 'the bootstrap file in use')
      .option(
        '--threshold <n>',
        'so many must sign from then on; without it the smallest that is safe',
        count,
      )
      .requiredOption('--out <file>', 'where the draft goes')
  change('add', 'a draft with one authority more')
    .argument('<card>', 'the file that its init made')
    .action(async (card: string, { bootstrap, threshold, out, json }: ChangeOptions) => {
      const { draftChange } = await import('#daemon/ceremony')
      await save(out, await draftChange(bootstrap, { add: card }, threshold), json)
    })
  change('remove', 'a draft without an authority: it left, or its key is in other hands')
    .argument('<name>', 'its name')
    .action(async (name: string, { bootstrap, threshold, out, json }: ChangeOptions) => {
      const { draftChange } = await import('#daemon/ceremony')
      await save(out, await draftChange(bootstrap, { remove: name }, threshold), json)
    })
  command('sign', 'sign a draft; the key may be on a machine without a network')
    .argument('<draft>', 'file; the signature is added to it')
    .requiredOption('--key <file>', 'authority.pem')
    .action(async (draft: string, { key, json }: { key: string; json?: boolean }) => {
      const { signDraft } = await import('#daemon/ceremony')
      await tell(await signDraft(draft, key), json)
    })
  command('adopt', 'put signed drafts together, and the document behind those of the bootstrap file')
    .argument('<drafts...>', 'the draft, or copies of it with signatures of others')
    .requiredOption('--bootstrap <file>', 'the bootstrap file; made when it is missing')
    .action(async (drafts: string[], { bootstrap, json }: { bootstrap: string; json?: boolean }) => {
      const { adoptDrafts } = await import('#daemon/ceremony')
      const { serial, threshold, authorities } = await adoptDrafts(bootstrap, drafts)
      if (json) printJson({ serial, threshold, authorities: authorities.map(({ name }) => name) })
      else print(`document ${serial}: ${threshold} of ${authorities.map(({ name }) => name).join(', ')}`)
    })
}

interface ChangeOptions {
  readonly bootstrap: string
  readonly threshold?: number
  readonly out: string
  readonly json?: boolean
}

async function save(out: string, draft: Draft, json: boolean | undefined): Promise<void> {
  const { writeDraft } = await import('#daemon/ceremony')
  await writeDraft(out, draft)
  await tell(draft, json)
}

/** What a draft says, and who has signed it. */
async function tell(draft: Draft, json: boolean | undefined): Promise<void> {
  const { hasSigned } = await import('#daemon/ceremony')
  const { serial, threshold, authorities, signatures } = draft
  const rows = authorities.map((member) => ({
    name: member.name,
    url: member.url,
    signed: hasSigned(draft, member),
  }))
  if (json) printJson({ serial, threshold, signatures: signatures.length, authorities: rows })
  else
    print(
      `document ${serial}: ${threshold} of ${authorities.length}, ${signatures.length} signatures by now`,
      ...columns(
        rows.map(({ name, url, signed }) => [name, url, signed ? paint('green', 'signed') : '-']),
        ['name', 'url', 'signature'],
      ),
    )
}

function registerReports(directory: Command): void {
  const report = (name: string, description: string): Command =>
    directory
      .command(name)
      .description(description)
      .requiredOption('-s, --socket <path>', 'control socket of the daemon')
      .option('--json', 'print JSON')
  report('status', 'the document, the authorities, and what is wrong').action(
    async ({ socket, json }: { socket: string; json?: boolean }) => {
      const { directoryReport, statusLines } = await import('#cli/directory-report')
      const status = await controlRequest(socket, 'status')
      if (json) printJson(status)
      else print(...statusLines(directoryReport(status)))
    },
  )
  report('health', 'what is wrong and since when')
    .addHelpText(
      'after',
      '\nExit code 0: all is well. 1: there is a valid document, but something is wrong, or the daemon cannot be asked.\n3: there is no valid document.',
    )
    .action(async ({ socket, json }: { socket: string; json?: boolean }) => {
      const { directoryReport, healthLines, healthOf } = await import('#cli/directory-report')
      const health = healthOf(directoryReport(await controlRequest(socket, 'status')))
      if (json) printJson(health)
      else print(...healthLines(health))
      process.exitCode = health.exitCode
    })
}

function count(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > 16) throw new InvalidArgumentError('expected 1 to 16')
  return value
}
