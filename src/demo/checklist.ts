import type { Check } from '#demo/verdict'

/** Collects checks; a check that throws has failed, and the next one is made all the same. */
export class Checklist {
  readonly #checks: Check[] = []
  readonly #say: (text: string) => void

  constructor(say: (text: string) => void) {
    this.#say = say
  }

  /** Makes one check. `action` returns the evidence, or throws saying what was wrong. */
  async run(name: string, action: () => Promise<string>): Promise<void> {
    try {
      this.add([{ name, ok: true, evidence: await action() }])
    } catch (error) {
      this.add([{ name, ok: false, evidence: error instanceof Error ? error.message : String(error) }])
    }
  }

  add(checks: readonly Check[]): void {
    for (const check of checks) {
      this.#checks.push(check)
      this.#say(`${check.ok ? 'ok  ' : 'FAIL'} ${check.name}${check.ok ? '' : `: ${check.evidence}`}`)
    }
  }

  get all(): readonly Check[] {
    return this.#checks
  }
}

/** For use inside a check. @throws Error with `otherwise` when it does not hold. */
export function expect(holds: boolean, otherwise: string): void {
  if (!holds) throw new Error(otherwise)
}
