/**
 * The client's guard without the client: before the network is up, so that not even the first packet of a booting
 * host is in clear, and after a client that died and is not to come back.
 */
import { ip } from '#base/ip'
import { type ClientConfig, loadConfig } from '#config/load'
import { DEVICE } from '#daemon/runtime'
import { requireCapabilities } from '#linux/caps'
import { serveControl } from '#linux/control'
import { chooseFirewall } from '#linux/firewall'
import { LinuxHost } from '#linux/host'
import { SysctlKeeper } from '#linux/sysctl'
import { XfrmPlane } from '#linux/xfrm-plane'
import type { FilterContext } from '#nat/rules'
import { clientRules } from '#nat/rulesets'

/** Nothing leaves this host until a client takes over. @throws IpprivError, IPP_CONTROL_BUSY when one runs */
export async function raiseGuard(file: string): Promise<void> {
  await instead(await loadConfig('client', file), async () => {
    const context = contextOf()
    const backend = await chooseFirewall(context)
    await backend.apply(clientRules({ entries: [], directories: [], context }))
  })
}

/** Removes all that a client which died left in force: this host speaks in clear again. @throws as `raiseGuard` */
export async function lowerGuard(file: string): Promise<void> {
  const config = await loadConfig('client', file)
  await instead(config, async () => {
    const backend = await chooseFirewall(contextOf())
    await XfrmPlane.clear(DEVICE)
    // It restores what a predecessor changed.
    await new SysctlKeeper(config.state).open()
    const host = new LinuxHost({ firewall: { backend, owner: 'ippriv_client' } })
    await host.open(DEVICE)
    await host.close()
  })
}

/** In place of the daemon: a client that runs has a guard of its own, and one that starts meanwhile is refused. */
async function instead({ control }: ClientConfig, action: () => Promise<void>): Promise<void> {
  await requireCapabilities('CAP_NET_ADMIN')
  const socket = await serveControl(control, {})
  try {
    await action()
  } finally {
    await socket.close()
  }
}

/** There is no device yet, and no address. The rules let nothing but loopback pass on either plane. */
const contextOf = (): FilterContext => ({ plane: 'userspace', device: DEVICE, address: ip('0.0.0.0') })
