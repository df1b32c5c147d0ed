import { join } from 'node:path'
import { runInUml } from '#linux/uml'
import type { BenchContext } from './bench.ts'

/**
 * Runs a program of this folder, with one argument as JSON, in a guest with a real kernel (User-Mode Linux). Its lines
 * that are JSON objects are the samples; all of them are told as they come. @throws Error when the guest fails or is
 * not done within `timeoutMs`
 */
export async function samplesFromGuest<Sample>(
  program: string,
  argument: unknown,
  timeoutMs: number,
  { signal, say }: Pick<BenchContext, 'signal' | 'say'>,
): Promise<Sample[]> {
  const { exitCode, stdout, stderr } = await runInUml({
    command: [process.execPath, join(import.meta.dirname, program), JSON.stringify(argument)],
    cwd: join(import.meta.dirname, '..'),
    timeoutMs,
    onStdout: (chunk) => say(Buffer.from(chunk).toString().trim()),
  })
  signal.throwIfAborted()
  if (exitCode !== 0) throw new Error(`the guest ended with ${exitCode}: ${stderr.trim().slice(-600)}`)
  return stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Sample)
}
