/** A machine that is reached by ssh(1): scripts, files, and programs that go on when the connection has ended. */
import type { CommandResult, Commands } from '#demo/command'
import type { Machine } from './hosts.ts'

/** Started in the background; the process id is that of the program itself. */
export interface RemoteProgram {
  readonly pid: number
  readonly log: string
}

export class Remote {
  readonly machine: Machine
  /** Files of this run: gone with `clean`. */
  readonly home: string
  readonly #commands: Commands
  readonly #ssh: readonly string[]

  constructor(commands: Commands, machine: Machine, options: readonly string[], home: string) {
    this.#commands = commands
    this.machine = machine
    this.home = home
    this.#ssh = ['ssh', '-o', 'BatchMode=yes', '-o', 'ConnectTimeout=15', ...options, machine.destination]
  }

  /** Runs lines of sh until one fails. @throws IpprivError IPP_HOST_TOOL */
  async sh(script: string, { timeoutMs = 60_000, always = false } = {}): Promise<string> {
    return (await this.#run('sh -es', script, timeoutMs, always)).stdout
  }

  async json<T>(script: string): Promise<T> {
    return JSON.parse(await this.sh(script)) as T
  }

  /** Readable by its owner alone. */
  async put(name: string, content: string): Promise<string> {
    const file = `${this.home}/${name}`
    await this.#run(`umask 77 && mkdir -p ${this.home} && cat >${file}`, content, 60_000, false)
    return file
  }

  /** Of a local folder all but what is made again there. */
  async install(source: string, folder: string): Promise<void> {
    const leave = ['node_modules', '.git', 'bench-out', 'demo-out'].map((name) => `--exclude=./${name}`)
    const there = `mkdir -p ${folder} && tar -x -C ${folder} && cd ${folder} && sh deploy/setup.sh testbed`
    const pipe = 'folder=$1 there=$2; shift 2; tar -c -C "$folder" '
    const script = `set -o pipefail; ${pipe}${leave.join(' ')} . | "$@" "$there"`
    await this.#commands.run(['bash', '-c', script, 'install', source, there, ...this.#ssh], {
      timeoutMs: 900_000,
    })
  }

  /** A session of its own, so that it outlives the connection. */
  async start(name: string, command: string): Promise<RemoteProgram> {
    const log = `${this.home}/${name}.log`
    const said = await this.sh(`mkdir -p ${this.home}; setsid ${command} >${log} 2>&1 </dev/null & echo $!`)
    return { pid: Number(said.trim()), log }
  }

  /** SIGTERM, and SIGKILL after ten seconds. */
  async stop({ pid }: RemoteProgram): Promise<void> {
    const script = `kill ${pid} 2>/dev/null || exit 0
for i in $(seq 100); do kill -0 ${pid} 2>/dev/null || exit 0; sleep 0.1; done
kill -9 ${pid} 2>/dev/null || :`
    await this.sh(script, { always: true })
  }

  async lastWords({ log }: RemoteProgram): Promise<string> {
    return (await this.sh(`tail -n 1 ${log}`)).trim().slice(0, 400)
  }

  async clean(): Promise<void> {
    await this.sh(`rm -rf ${this.home}`, { always: true })
  }

  async #run(command: string, input: string, timeoutMs: number, always: boolean): Promise<CommandResult> {
    try {
      return await this.#commands.run([...this.#ssh, command], { input, timeoutMs, always })
    } catch (error) {
      // The command line of ssh comes first there, and is long.
      throw new Error(`${this.machine.name}: ${(error as Error).message.slice(-300)}`, { cause: error })
    }
  }
}
