import { join } from 'node:path'
import { expect } from '#demo/checklist'
import {
  contentDigest,
  DNS_PORT,
  ECHO_PORT,
  HTTP_PORT,
  MEBIBYTE,
  PAGE_MARK,
  WEB_NAME,
  WHOAMI_NAME,
} from '#demo/content'
import { type ClientStatus, clientReady, defaultCircuit, PROGRAM, ready, statusOf } from '#demo/daemons'
import type { Scene } from '#demo/scene'
import { type Host, hostOf } from '#demo/topology'

/** What the circuit is put through. Each trial adds its checks to the scene's list. */

export async function smallRequests(scene: Scene): Promise<void> {
  const client = hostOf(scene.topology, 'client')
  const server = hostOf(scene.topology, 'server').address
  const exit = hostOf(scene.topology, scene.path().at(-1)!)
  const traffic = scene.traffic
  await scene.checks.run('web page through the circuit', async () => {
    const page = await traffic.page(client, '/')
    expect(page.includes(PAGE_MARK), `the page is not the server's: ${page.slice(0, 80)}`)
    const seen = (await traffic.page(client, '/whoami')).trim()
    expect(seen === exit.address, `the web server saw ${seen}, not the exit ${exit.address}`)
    return `${page.length} octets; the web server saw ${seen} (${exit.name})`
  })
  await scene.checks.run('ping through the circuit', async () => {
    scene.pings = await traffic.ping(client, 20)
    const { sent, received, rttMs } = scene.pings
    // With loss on every cable most still come back: four cables twice at 2 % leave 85 of 100.
    const enough = scene.options.lossPercent === 0 ? received === sent : received >= sent / 4
    expect(sent > 0 && enough, `${received} of ${sent} answered`)
    return `${received} of ${sent} answered, ${rttMs?.average} ms on average`
  })
  const dns = (name: string, type: 'A' | 'TXT') => ({
    kind: 'dns' as const,
    server,
    port: DNS_PORT,
    name,
    type,
    // Loss is repaired by repetition, as any resolver does.
    attempts: 5,
  })
  const results = await scene.attempt('UDP', () =>
    traffic.probe(client, [traffic.echo(10), dns(WEB_NAME, 'A'), dns(WHOAMI_NAME, 'TXT')]),
  )
  const [echo, web, whoami] = results ?? []
  await scene.checks.run('UDP echo through the circuit', async () => {
    const enough = scene.options.lossPercent === 0 ? echo?.received === echo?.sent : (echo?.received ?? 0) > 0
    expect(
      echo !== undefined && enough,
      `${echo?.received} of ${echo?.sent} answered; ${echo?.errors.join(', ')}`,
    )
    return `${echo!.received} of ${echo!.sent} datagrams returned`
  })
  await scene.checks.run('DNS look-up comes from the exit', async () => {
    expect(web?.answers[0] === server, `${WEB_NAME}: ${web?.answers.join(', ') || web?.errors.join(', ')}`)
    expect(whoami?.answers[0] === exit.address, `the DNS server saw ${whoami?.answers.join(', ')}`)
    return `${WEB_NAME} is ${web!.answers[0]}; the DNS server saw ${whoami!.answers[0]} (${exit.name})`
  })
}

/** A second circuit over the same nodes, and both in use at the same time. */
export async function secondCircuit(scene: Scene): Promise<void> {
  const client = hostOf(scene.topology, 'client')
  const path = scene.path()
  await scene.checks.run('two circuits at once over the same nodes', async () => {
    const daemon = scene.daemons.get('client')!
    const argv = [PROGRAM, 'circuits', 'build', '--path', path.join(','), '--socket', daemon.socket, '--json']
    await scene.commands.run(argv, { timeoutMs: 60_000 * scene.patience })
    const status = await statusOf<ClientStatus>(daemon)
    const second = status.circuits.find(
      (circuit) =>
        circuit.id !== scene.circuits[0]!.id &&
        circuit.state === 'open' &&
        circuit.path.join() === path.join(),
    )
    expect(second !== undefined, `the client shows no second circuit over ${path.join(', ')}`)
    scene.circuits.push(second!)
    const addresses = scene.circuits.map((circuit) => circuit.privateAddresses.at(-1)!)
    expect(
      new Set(scene.circuits.flatMap((c) => c.privateAddresses)).size === 2 * path.length,
      'an address was lent twice',
    )
    const traffic = scene.traffic
    const [pages, pings, echoes] = await Promise.all([
      Promise.all(addresses.map((from) => traffic.page(client, '/', from))),
      Promise.all(addresses.map((from) => traffic.ping(client, 10, from))),
      traffic.probe(
        client,
        addresses.map((from) => traffic.echo(10, from)),
      ),
    ])
    const answered = pings.map((ping) => ping.received)
    const echoed = echoes.map((echo) => echo.received)
    expect(
      pages.every((page) => page.includes(PAGE_MARK)),
      "a page is not the server's",
    )
    const all = [...answered, ...echoed]
    expect(
      all.every((count) => (scene.options.lossPercent > 0 ? count > 0 : count === 10)),
      `answered ${all.join(', ')} of 10`,
    )
    return `from ${addresses.join(' and ')}: a page, ${answered.join(' and ')} of 10 pings, ${echoed.join(' and ')} of 10 datagrams each`
  })
}

export async function largeDownload(scene: Scene): Promise<void> {
  const { mebibytes, say, lossPercent } = scene.options
  const octets = mebibytes * MEBIBYTE
  scene.direct = await scene.attempt('direct download', () =>
    scene.traffic.download(hostOf(scene.topology, 'plain'), octets),
  )
  if (scene.direct !== undefined) say(`direct: ${mebibytes} MiB at ${scene.direct.mbps.toFixed(1)} Mbit/s`)
  const under = lossPercent > 0 ? ` under ${lossPercent} % loss` : ''
  await scene.checks.run(`${mebibytes} MiB through the circuit${under}, SHA-256 equal`, async () => {
    const wanted = contentDigest(octets)
    const done = await scene.traffic.download(hostOf(scene.topology, 'client'), octets)
    scene.download = done
    expect(
      done.octets === octets && done.sha256 === wanted,
      `${done.octets} octets, SHA-256 ${done.sha256}, expected ${wanted}`,
    )
    return `${octets} octets at ${done.mbps.toFixed(1)} Mbit/s, SHA-256 ${done.sha256}`
  })
  if (scene.options.plane === 'xfrm') scene.samples = await sampleGoodput(scene)
  scene.sas = await scene.saCounters()
}

/**
 * Goodput of a few small downloads, in Mbit/s. Whatever else this machine does meanwhile can only slow them
 * down, so the best of them is compared.
 */
export async function sampleGoodput(scene: Scene, from?: string): Promise<readonly number[]> {
  const client = hostOf(scene.topology, 'client')
  const octets = Math.min(8, scene.options.mebibytes) * MEBIBYTE
  const samples: number[] = []
  for (let i = 0; i < 3; i++) samples.push((await scene.traffic.download(client, octets, from)).mbps)
  return samples
}

/** SIGKILL in the middle of a download; programs keep sending; the next start takes over. */
export async function killClient(scene: Scene): Promise<void> {
  const { out, mebibytes } = scene.options
  const host = hostOf(scene.topology, 'client')
  await scene.checks.run('the client daemon is killed mid-download and comes back', async () => {
    const log = join(out, 'interrupted-download.log')
    const download = await scene.traffic.beginDownload(host, 4 * mebibytes * MEBIBYTE, log)
    const daemon = scene.daemons.get('client')!
    daemon.process.kill('SIGKILL')
    await daemon.process.ended
    const attempts = await knockEverywhere(scene, host)
    download.process.kill('SIGKILL')
    await download.process.ended
    const began = performance.now()
    const client = scene.start(host)
    const status = await ready<ClientStatus>(client, 60_000 * scene.patience, clientReady)
    const page = await scene.traffic.page(host, '/')
    expect(page.includes(PAGE_MARK), 'no page after the restart')
    const path = defaultCircuit(status)!.path.join(' > ')
    return (
      `killed after ${download.received} octets; while it was dead ${attempts}; ` +
      `${seconds(began)} after its next start a page came through ${path}`
    )
  })
}

/** What programs do that do not know the daemon is gone: bound and unbound, every protocol, the entry itself. */
async function knockEverywhere(scene: Scene, host: Host): Promise<string> {
  const server = hostOf(scene.topology, 'server').address
  const entry = hostOf(scene.topology, scene.path()[0]!).address
  const from = scene.circuits[0]!.privateAddresses.at(-1)!
  const traffic = scene.traffic
  const echo = { kind: 'echo' as const, count: 40, intervalMs: 50 }
  const timeoutMs = 1500
  const plan = [
    { ...echo, to: server, port: ECHO_PORT },
    { ...echo, to: server, port: ECHO_PORT, from },
    { ...echo, to: entry, port: 4500 },
    { ...echo, to: entry, port: 500 },
    { kind: 'dns' as const, server, port: DNS_PORT, name: WEB_NAME, type: 'A' as const, attempts: 1 },
    { kind: 'connect' as const, to: server, port: HTTP_PORT, timeoutMs },
    { kind: 'connect' as const, to: server, port: HTTP_PORT, from, timeoutMs },
    { kind: 'connect' as const, to: entry, port: 22, timeoutMs },
  ]
  const [results, ping] = await Promise.all([
    traffic.probe(host, plan),
    // No route at all is as good as a drop: then ping itself fails.
    scene.attempt('ping', () => traffic.ping(host, 10)),
  ])
  const sent = results.reduce((sum, result) => sum + result.sent, ping?.sent ?? 0)
  const answered = results.reduce((sum, result) => sum + result.received, ping?.received ?? 0)
  return `programs sent ${sent} requests, ${answered} were answered`
}

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`
