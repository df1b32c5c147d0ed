/** Runs a program of the host that has no netlink codec of ours (nft, iptables), with text on its stdin. */
import { spawn } from 'node:child_process'
import { IpprivError } from '#base/errors'

/** Longest text kept of what a tool printed. */
const OUTPUT_LIMIT = 1 << 20
const TIMEOUT = 60_000
/** Where distributions keep such tools; a daemon's PATH often lacks sbin. */
const SEARCH_PATH = '/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin'

/**
 * Gives what the program printed on stdout.
 * @throws IpprivError IPP_HOST_TOOL when it is missing, fails, or takes longer than a minute; with the first lines it printed.
 */
export async function runTool(program: string, args: readonly string[], input = ''): Promise<string> {
  const result = await collect(program, args, input)
  if (result.code === 0) return result.stdout
  const said = firstLines(result.stderr || result.stdout)
  const end = result.code === null ? `killed by ${result.signal}` : `exit code ${result.code}`
  throw new IpprivError('IPP_HOST_TOOL', `${program} ${args.join(' ')}: ${said || end}`)
}

interface Result {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

function collect(program: string, args: readonly string[], input: string): Promise<Result> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? ''}:${SEARCH_PATH}` }
    const child = spawn(program, [...args], { env, stdio: ['pipe', 'pipe', 'pipe'], timeout: TIMEOUT })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (stdout.length < OUTPUT_LIMIT) stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < OUTPUT_LIMIT) stderr += text
    })
    child.on('error', (cause) =>
      reject(new IpprivError('IPP_HOST_TOOL', `${program} cannot be started: ${cause.message}`, { cause })),
    )
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }))
    // A program that ends before it read everything breaks the pipe; its exit code tells the story.
    child.stdin.on('error', () => child.stdin.destroy())
    child.stdin.end(input)
  })
}

const firstLines = (text: string): string =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .slice(0, 3)
    .join('; ')
    .slice(0, 400)
