/**
 * The program. Commands load what they need when they run, so that `--help` is instant and a daemon does not
 * carry the demo.
 */
import { Command, CommanderError } from 'commander'
import { registerCircuits } from '#cli/circuits'
import { registerDaemons } from '#cli/daemons'
import { registerDemo } from '#cli/demo'
import { registerDirectory } from '#cli/directory'
import { registerDirectoryKeys } from '#cli/directory-keys'
import { registerDoctor } from '#cli/doctor'
import { registerKeygen } from '#cli/keygen'
import { registerMeasure } from '#cli/measure'
import { EXIT, endWhenUnread, fail } from '#cli/output'
import { registerOverlay } from '#cli/overlay'
import { registerReplay } from '#cli/replay'
import { registerStatus } from '#cli/status'
import { registerTune } from '#cli/tune'
import packageJson from '../package.json' with { type: 'json' }

endWhenUnread()

const program = new Command('ippriv')
  .description('IPpriv anonymization overlay: nodes, clients, directories')
  .version(packageJson.version)
  .showHelpAfterError('(--help says what is accepted)')
  .exitOverride()

registerKeygen(program)
registerDaemons(program)
registerDirectory(program)
registerDirectoryKeys(program)
registerStatus(program)
registerCircuits(program)
registerOverlay(program)
registerMeasure(program)
registerDoctor(program)
registerTune(program)
registerDemo(program)
registerReplay(program)

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage
  else fail(error)
}
