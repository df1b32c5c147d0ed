import { readFile, writeFile } from 'node:fs/promises'
import { release } from 'node:os'
import { join } from 'node:path'
import { type Capture, startCaptures, stopCaptures } from '#demo/capture'
import { expect } from '#demo/checklist'
import {
  type CircuitStatus,
  type ClientStatus,
  clientReady,
  type DirectoryStatus,
  defaultCircuit,
  type NodeStatus,
  nodeReady,
  prepareDaemons,
  ready,
} from '#demo/daemons'
import { buildByHand } from '#demo/handmade'
import { fullCaptures, gather, joinKeyLogs, leakCapture, watchCaptures } from '#demo/observation'
import { readPcap } from '#demo/pcap'
import { nameKnowledge, type Report } from '#demo/report'
import { inventory, processesIn, residue } from '#demo/residue'
import type { Scene } from '#demo/scene'
import { hostOf, impair, nodesOf, raise as raiseTopology } from '#demo/topology'
import { killClient, largeDownload, sampleGoodput, secondCircuit, smallRequests } from '#demo/trials'
import { judge as judgeEvidence, labels } from '#demo/verdict'

/**
 * The demo itself, in the order it happens. A step that fails becomes a failed check and the next one is
 * tried; only a network that does not come up ends it. @throws IpprivError then.
 */
export async function tell(scene: Scene): Promise<Report> {
  const began = performance.now()
  const { full, watch } = await raise(scene)
  await startNetwork(scene)
  await startClient(scene)
  await smallRequests(scene)
  await secondCircuit(scene)
  await scene.endCaptures(full)
  await largeDownload(scene)
  await killClient(scene)
  if (scene.options.keep) await scene.endCaptures(watch)
  else {
    const codes = [await stopDaemon(scene, 'client')]
    await scene.endCaptures(watch)
    await stopNetwork(scene, codes)
    await controlOfTheWatch(scene)
    if (scene.options.plane === 'xfrm') await handmadeTelescope(scene)
  }
  return await judge(scene, began)
}

async function raise(scene: Scene): Promise<{ full: Capture[]; watch: Capture[] }> {
  const { say, lossPercent } = scene.options
  say(`an internet of ${scene.topology.hosts.length} hosts around a router that knows 198.18.0.0/15 only`)
  await Promise.all([
    raiseTopology(scene.commands, scene.topology),
    prepareDaemons(scene.commands, scene.topology, scene.options),
  ])
  if (lossPercent > 0) await impair(scene.commands, scene.topology, lossPercent)
  await Promise.all(
    scene
      .daemonHosts()
      .map(async (host) => scene.before.set(host.name, await inventory(scene.commands, host))),
  )
  const timeout = 20_000 * scene.patience
  const full = await startCaptures(scene.commands, scene.options.out, fullCaptures(scene.topology), timeout)
  const watch = await startCaptures(scene.commands, scene.options.out, watchCaptures(scene.topology), timeout)
  say(`${full.length + watch.length} captures on every cable and inside every node`)
  return { full, watch }
}

async function startNetwork(scene: Scene): Promise<void> {
  const { say } = scene.options
  const began = performance.now()
  const directory = scene.start(hostOf(scene.topology, 'directory'))
  await scene.startOrigin()
  await ready<DirectoryStatus>(directory, 20_000 * scene.patience, () => undefined)
  say(`web server and directory are up; starting ${nodesOf(scene.topology).length} nodes`)
  const nodes = nodesOf(scene.topology).map((host) => scene.start(host))
  const names = nodes.map((node) => node.name)
  await Promise.all(
    nodes.map((node) => {
      const peers = names.filter((name) => name !== node.name)
      return ready<NodeStatus>(node, 60_000 * scene.patience, nodeReady(peers))
    }),
  )
  say(`overlay is up after ${seconds(began)}: every node has tunnels to the other ${names.length - 1}`)
}

async function startClient(scene: Scene): Promise<void> {
  const client = scene.start(hostOf(scene.topology, 'client'))
  const status = await ready<ClientStatus>(client, 60_000 * scene.patience, clientReady)
  const circuit = defaultCircuit(status)!
  scene.circuits = [circuit]
  scene.options.say(
    `circuit client > ${circuit.path.join(' > ')} open, built in ${circuit.buildMs.toFixed(0)} ms`,
  )
}

/** Undefined when it ended with code 0, else what happened instead. */
async function stopDaemon(scene: Scene, name: string): Promise<string | undefined> {
  const code = await scene.daemons.get(name)!.process.stop(15_000 * scene.patience)
  if (name === 'client') scene.clientEnded = Date.now() / 1000
  return code === 0 ? undefined : `${name} ended with ${code === null ? 'a signal' : `code ${code}`}`
}

async function stopNetwork(scene: Scene, clientCodes: readonly (string | undefined)[]): Promise<void> {
  scene.options.say('stopping every daemon')
  const nodes = await Promise.all(nodesOf(scene.topology).map((node) => stopDaemon(scene, node.name)))
  const codes = [...clientCodes, ...nodes, await stopDaemon(scene, 'directory')].filter(
    (c) => c !== undefined,
  )
  await scene.checks.run('every daemon stops cleanly and leaves nothing behind', async () => {
    const left = await Promise.all(
      scene.daemonHosts().map(async (host) => {
        const found = residue(scene.before.get(host.name)!, await inventory(scene.commands, host))
        const capture = (line: string) => line.startsWith('tcpdump ')
        const processes = (await processesIn(scene.commands, host)).filter((line) => !capture(line))
        return [...found, ...processes.map((line) => `process: ${line}`)].map(
          (line) => `${host.name}: ${line}`,
        )
      }),
    )
    const wrong = [...codes, ...left.flat()]
    expect(wrong.length === 0, wrong.slice(0, 12).join('; '))
    return `${scene.daemons.size} daemons ended with code 0; SAs, policies, devices, addresses, routes, rules, filters and processes as before they started`
  })
}

/** A watch that sees nothing proves nothing, unless it is shown to see. */
async function controlOfTheWatch(scene: Scene): Promise<void> {
  const host = hostOf(scene.topology, 'client')
  await scene.checks.run('control: the leak watch does see a packet in clear', async () => {
    const spec = leakCapture(scene.topology, 'control-client')
    const captures = await startCaptures(scene.commands, scene.options.out, [spec], 20_000 * scene.patience)
    const pings = await scene.traffic.ping(host, 3)
    await stopCaptures(captures)
    const seen = [...readPcap(await readFile(captures[0]!.file))].length
    expect(seen > 0 && pings.received > 0, `${pings.received} of 3 pings answered, ${seen} packets seen`)
    return `after the client had ended, ${pings.sent} pings in clear were seen as ${seen} packets`
  })
}

/** The yardstick of the kernel plane, in the same boot: same path, same cipher, no daemon. */
async function handmadeTelescope(scene: Scene): Promise<void> {
  await scene.checks.run('goodput is at least 0.9 of a telescope made by hand', async () => {
    const hand = await buildByHand(scene.commands, scene.topology, scene.path(), scene.options.cipher)
    scene.handmade = await sampleGoodput(scene, hand.privateAddress).finally(() => hand.remove())
    const [own, yardstick] = [Math.max(0, ...scene.samples), Math.max(...scene.handmade)]
    const list = (samples: readonly number[]) => samples.map((mbps) => mbps.toFixed(1)).join(', ')
    const text = `best of ${list(scene.samples)} Mbit/s through the daemons' telescope, best of ${list(scene.handmade)} by hand`
    expect(own >= 0.9 * yardstick, text)
    return text
  })
}

async function judge(scene: Scene, began: number): Promise<Report> {
  const { out, plane, lossPercent, say, userModeLinux } = scene.options
  say('reading the captures')
  await joinKeyLogs(scene.topology, out)
  const evidence = await gather(scene.topology, out, scene)
  const verdict = judgeEvidence(evidence)
  scene.checks.add(verdict.checks)
  const [circuit, second] = scene.circuits
  const checks = scene.checks.all
  const report: Report = {
    ok: checks.every((check) => check.ok),
    plane,
    kernel: release(),
    userModeLinux,
    path: circuit!.path,
    privateAddresses: circuit!.privateAddresses,
    cipher: circuit!.cipher,
    suite: circuit!.suite,
    circuitBuildMs: circuit!.buildMs,
    exchanges: circuit!.path.map((_, hop) =>
      circuit!.exchanges.filter((exchange) => exchange.hop === hop + 1),
    ),
    secondCircuit: second === undefined ? null : brief(second),
    download: scene.download ?? null,
    goodputMbps: scene.download?.mbps ?? null,
    directMbps: scene.direct?.mbps ?? null,
    yardstick:
      scene.handmade.length === 0
        ? null
        : {
            daemonsMbps: scene.samples,
            handmadeMbps: scene.handmade,
            ratio: Math.max(0, ...scene.samples) / Math.max(...scene.handmade),
          },
    pings: scene.pings,
    leaks: verdict.leaks,
    checks,
    whoSawWhom: nameKnowledge(verdict.knowledge, labels(evidence)),
    sas: scene.sas,
    lossPercent,
    seconds: (performance.now() - began) / 1000,
    out,
  }
  await writeFile(join(out, 'report.json'), `${JSON.stringify(report, null, 2)}\n`)
  return report
}
const brief = ({ id, path, privateAddresses, buildMs }: CircuitStatus) => ({
  id,
  path,
  privateAddresses,
  buildMs,
})

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`
