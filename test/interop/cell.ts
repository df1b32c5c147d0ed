/** What `npm run interop` prints a line of: something that two implementations did together, or why they did not. */

export interface Cell {
  readonly part: string
  readonly name: string
  /** `absent`: what it needs is not to be had on this machine, and `detail` says what. It shows nothing. */
  readonly state: 'passed' | 'failed' | 'absent'
  readonly milliseconds: number
  readonly detail: string
}

/** Thrown by a cell that cannot be tried here. */
export class Absent extends Error {}

export interface Cells {
  readonly cell: (part: string, name: string, work: () => Promise<string>) => Promise<boolean>
  /** One without which the others cannot be. */
  readonly essential: (part: string, name: string, work: () => Promise<string>) => Promise<void>
}

export function makeCells(tell: (cell: Cell) => void): Cells {
  /** Once nothing works, the cells behind fail at once. */
  let broken: string | undefined

  async function cell(part: string, name: string, work: () => Promise<string>): Promise<boolean> {
    const began = performance.now()
    const end = (state: Cell['state'], detail: string): boolean => {
      tell({ part, name, state, milliseconds: Math.round(performance.now() - began), detail })
      return state === 'passed'
    }
    if (broken !== undefined) return end('failed', `not tried: ${broken}`)
    try {
      return end('passed', await work())
    } catch (error) {
      const detail = (error as Error).message.replaceAll(/\s+/g, ' ').slice(0, 600)
      return end(error instanceof Absent ? 'absent' : 'failed', detail)
    }
  }

  async function essential(part: string, name: string, work: () => Promise<string>): Promise<void> {
    if (!(await cell(part, name, work))) broken = `${name} failed`
  }

  return { cell, essential }
}
