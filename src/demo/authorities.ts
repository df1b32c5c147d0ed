/**
 * The story of several authorities: they make a document, as many of them are killed as may fail, and clients go on. The
 * one that ran builds a new circuit by a document made without the dead, and one that knows nothing starts.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from '#demo/checklist'
import { until } from '#demo/command'
import { PAGE_MARK } from '#demo/content'
import {
  type CircuitStatus,
  type ClientStatus,
  clientReady,
  type DirectoryStatus,
  type NodeStatus,
  nodeReady,
  PROGRAM,
  prepareDaemons,
  ready,
  statusOf,
  thresholdOf,
} from '#demo/daemons'
import type { Scene } from '#demo/scene'
import { directoriesOf, hostOf, impair, nodesOf, raise, runDirectory } from '#demo/topology'
import type { Check } from '#demo/verdict'
import type { CouncilReport } from '#directory/minutes'

export interface CouncilStory {
  readonly ok: boolean
  readonly checks: readonly Check[]
  /** What one of the survivors said, before and after. */
  readonly health: readonly { readonly when: string; readonly of: CouncilReport }[]
  readonly killed: readonly string[]
  readonly circuits: readonly (readonly string[])[]
  readonly seconds: number
  readonly out: string
}

/** Seconds. Steps of four seconds are enough when everything else on this machine is slow. */
const PERIOD = 48

/** Of a dozen programs that end at once; at their first end they also write the cache of compiled code. */
const STOP_PATIENCE = 45_000

/** @throws IpprivError when the network does not come up; everything later is a check. */
export async function tellOfAuthorities(scene: Scene): Promise<CouncilStory> {
  const began = performance.now()
  const { commands, topology, options, checks } = scene
  const { say, out, lossPercent } = options
  const authorities = directoriesOf(topology).map(({ name }) => name)
  const count = authorities.length
  const threshold = thresholdOf(count)
  const killed = authorities.filter((_, i) => i % 2 === 1).slice(0, count - threshold)
  const survivors = authorities.filter((name) => !killed.includes(name))
  const health: { when: string; of: CouncilReport }[] = []
  const circuits: (readonly string[])[] = []
  const note = async (when: string): Promise<void> => {
    const of = await reportOf(scene, survivors[0]!)
    if (of !== undefined) health.push({ when, of })
  }

  say(`an internet of ${topology.hosts.length} hosts: ${count} authorities, ${threshold} must sign`)
  await Promise.all([
    raise(commands, topology),
    prepareDaemons(commands, topology, { ...options, period: PERIOD * Math.ceil(scene.patience / 4) }),
  ])
  if (lossPercent > 0) await impair(commands, topology, lossPercent)
  await startNetwork(scene)
  await note('all authorities alive')

  const client = scene.start(hostOf(topology, 'client'))
  await ready<ClientStatus>(client, 60_000 * scene.patience, clientReady)
  await checks.run(`a document that all ${count} authorities signed, and a circuit by it`, async () => {
    const report = await reportOf(scene, survivors[0]!)
    const signers = report?.document?.signers ?? []
    expect(signers.length >= threshold, `only ${signers.join(', ')} signed`)
    const page = await scene.traffic.page(client.host, '/')
    expect(page.includes(PAGE_MARK), "the page is not the server's")
    const { circuits: open } = await statusOf<ClientStatus>(client)
    circuits.push(open[0]?.path ?? [])
    return `signed by ${signers.join(', ')}; a page through ${open[0]?.path.join(' > ')}`
  })

  const before = (await reportOf(scene, survivors[0]!))?.period ?? 0
  for (const name of killed) {
    const { process } = scene.daemons.get(name)!
    process.kill('SIGKILL')
    await process.ended
  }
  say(`killed ${killed.join(' and ')}; waiting for a document without them`)
  const wait = 4 * PERIOD * 1000 * Math.ceil(scene.patience / 4)
  await checks.run('the others make the next document without them', async () => {
    const report = await until(
      'a document of the survivors',
      wait,
      async () => {
        const found = await reportOf(scene, survivors[0]!)
        const { serial = 0, signers = [] } = found?.document ?? {}
        return serial > before && signers.every((name) => survivors.includes(name)) ? found : undefined
      },
      500,
    )
    const { serial, signers } = report.document!
    expect(signers.length === threshold, `signed by ${signers.join(', ')}`)
    await until(
      'the client to have it',
      wait,
      async () => {
        const { consensus } = await statusOf<ClientStatus>(client)
        return (consensus?.serial ?? 0) >= serial ? true : undefined
      },
      500,
    )
    await until(
      'everybody to be missed',
      wait,
      async () => {
        const found = await reportOf(scene, survivors[0]!)
        const missed = new Set(found?.alarms.map(({ authority }) => authority))
        return killed.every((name) => missed.has(name)) ? true : undefined
      },
      500,
    )
    return `serial ${serial}, signed by ${signers.join(', ')}; the client has it`
  })
  await note(`without ${killed.join(' and ')}`)

  await checks.run('the client builds a new circuit by it', async () => {
    const argv = [PROGRAM, 'circuits', 'build', '--socket', client.socket, '--json']
    const built = await commands.run(argv, { timeoutMs: 60_000 * scene.patience })
    const circuit = JSON.parse(built.stdout) as CircuitStatus
    circuits.push(circuit.path)
    const page = await scene.traffic.page(client.host, '/', circuit.privateAddresses.at(-1))
    expect(page.includes(PAGE_MARK), "the page is not the server's")
    return `a page through ${circuit.path.join(' > ')}, built in ${circuit.buildMs.toFixed(0)} ms`
  })
  await checks.run('a client that knows nothing starts without the dead authorities', async () => {
    expect(
      (await client.process.stop(STOP_PATIENCE * scene.patience)) === 0,
      'the first client did not end cleanly',
    )
    await rm(join(runDirectory(topology.id), 'client', 'state'), { recursive: true })
    const fresh = scene.start(hostOf(topology, 'client'))
    const status = await ready<ClientStatus>(fresh, 60_000 * scene.patience, clientReady)
    const page = await scene.traffic.page(fresh.host, '/')
    expect(page.includes(PAGE_MARK), "the page is not the server's")
    circuits.push(status.circuits[0]!.path)
    return `a page through ${status.circuits[0]!.path.join(' > ')}`
  })
  await checks.run('every daemon that was not killed stops cleanly', async () => {
    const alive = [...scene.daemons].filter(([name]) => !killed.includes(name))
    const codes = await Promise.all(
      alive.map(
        async ([name, { process }]) => [name, await process.stop(STOP_PATIENCE * scene.patience)] as const,
      ),
    )
    const wrong = codes.filter(([, code]) => code !== 0).map(([name, code]) => `${name}: ${code}`)
    expect(wrong.length === 0, wrong.join('; '))
    return `${codes.length} daemons ended with code 0`
  })
  const story: CouncilStory = {
    ok: checks.all.every((check) => check.ok),
    checks: checks.all,
    health,
    killed,
    circuits,
    seconds: (performance.now() - began) / 1000,
    out,
  }
  await writeFile(join(out, 'report.json'), `${JSON.stringify(story, null, 2)}\n`)
  return story
}

/** The story for people. */
export function formatCouncil(story: CouncilStory): string {
  const lines = story.health.flatMap(({ when, of }) => [
    '',
    `Consensus health, ${when}:`,
    ...formatHealth(of),
  ])
  lines.push('', 'Checks:')
  for (const { name, ok, evidence } of story.checks)
    lines.push(`  ${ok ? 'ok  ' : 'FAIL'} ${name}: ${evidence}`)
  lines.push(
    '',
    `${story.ok ? 'Everything held' : 'NOT everything held'}, ${story.seconds.toFixed(0)} s.`,
    '',
  )
  return lines.join('\n')
}

/** Who voted, who signed, how long it is good, what is wrong since when. */
export function formatHealth(report: CouncilReport): string[] {
  const { document, authorities, alarms, threshold } = report
  const lines: string[] = []
  if (document === undefined) lines.push('  there is no document yet')
  else {
    const { serial, nodes, signers, validAfter, freshUntil, validUntil } = document
    lines.push(
      `  document ${serial}: ${nodes} nodes, signed by ${signers.length} of ${authorities.length} (${threshold} needed)`,
      `  valid after ${clock(validAfter)}, fresh until ${clock(freshUntil)}, valid until ${clock(validUntil)}`,
    )
  }
  lines.push('  authority  last vote  last signature  signed it  answers')
  for (const { name, lastVote, lastSignature, silentSince } of authorities) {
    const signed = document?.signers.includes(name) ? 'yes' : 'no'
    const answers = silentSince === undefined ? 'yes' : `no, since ${clock(silentSince)}`
    lines.push(
      `  ${name.padEnd(9)}  ${cell(lastVote, 9)}  ${cell(lastSignature, 14)}  ${signed.padEnd(9)}  ${answers}`,
    )
  }
  for (const { name, authority, since, count } of alarms)
    lines.push(
      `  alarm ${name}${authority === undefined ? '' : ` (${authority})`} since ${clock(since)}, ${count} periods`,
    )
  return lines
}

async function startNetwork(scene: Scene): Promise<void> {
  const { topology, options, patience } = scene
  const began = performance.now()
  const authorities = directoriesOf(topology).map((host) => scene.start(host))
  await scene.startOrigin()
  for (const authority of authorities)
    await ready<DirectoryStatus>(authority, 40_000 * patience, () => undefined)
  options.say(`web server and authorities are up; starting ${nodesOf(topology).length} nodes`)
  const nodes = nodesOf(topology).map((host) => scene.start(host))
  const names = nodes.map(({ name }) => name)
  // A period to be heard, one to be listed, and time to build.
  const wait = (3 * PERIOD * Math.ceil(patience / 4) + 60 * patience) * 1000
  for (const node of nodes) {
    const peers = names.filter((name) => name !== node.name)
    await ready<NodeStatus>(node, wait, nodeReady(peers))
  }
  const seconds = ((performance.now() - began) / 1000).toFixed(0)
  options.say(`overlay is up after ${seconds} s: every node has tunnels to the other ${names.length - 1}`)
}

async function reportOf(scene: Scene, name: string): Promise<CouncilReport | undefined> {
  return (await statusOf<DirectoryStatus>(scene.daemons.get(name)!)).council
}

const clock = (moment: number): string => new Date(moment * 1000).toISOString().slice(11, 19)
const cell = (period: number, width: number): string => (period === 0 ? 'none' : String(period)).padEnd(width)
