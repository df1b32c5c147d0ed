/**
 * A control group that divides processor time thread by thread. Without one the kernel divides it between sessions
 * first (sched_autogroup_enabled), and twenty processes of one session count as one.
 */
import { access, mkdir, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sleep } from '#demo/command'

const ROOT = '/sys/fs/cgroup'

export class CpuGroup {
  readonly #folder: string

  private constructor(folder: string) {
    this.#folder = folder
  }

  /** @throws Error when this machine has no control groups for processor time */
  static async create(name: string): Promise<CpuGroup> {
    const first = await exists(join(ROOT, 'cpu', 'cgroup.procs'))
    if (!first && !(await exists(join(ROOT, 'cgroup.subtree_control'))))
      throw new Error(`no control groups for processor time below ${ROOT}`)
    if (!first) await writeFile(join(ROOT, 'cgroup.subtree_control'), '+cpu')
    const folder = join(ROOT, first ? 'cpu' : '', name)
    await mkdir(folder)
    return new CpuGroup(folder)
  }

  /** A process with all its threads. */
  async take(pid: number): Promise<void> {
    await writeFile(join(this.#folder, 'cgroup.procs'), `${pid}`)
  }

  /** The command line that runs `argv` in it. */
  command(argv: readonly string[]): string[] {
    return ['sh', '-c', 'echo $$ >"$0" && exec "$@"', join(this.#folder, 'cgroup.procs'), ...argv]
  }

  /** Once its processes have ended; the kernel takes a moment to notice. */
  async remove(): Promise<void> {
    for (let left = 20; left > 0; left--) {
      const isGone = await rmdir(this.#folder).then(
        () => true,
        (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
      )
      if (isGone) return
      await sleep(100)
    }
    throw new Error(`${this.#folder} cannot be removed: something still runs in it`)
  }
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )
