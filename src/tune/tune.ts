/** Inspects the settings of a role, corrects them, and puts back what was before. */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { IpprivError } from '#base/errors'
import { isHere, isTurnable, machine, readKnob, turnKnob } from '#tune/knobs'
import {
  correction,
  isFineAsIs,
  type Knob,
  type Role,
  type Setting,
  settingsFor,
  settled,
  wantedText,
} from '#tune/settings'

export interface Finding {
  readonly name: string
  /** Null: this machine has no such knob, or it cannot be turned. */
  readonly current: string | null
  readonly wanted: string
  /** `fixed`: it should be changed, but not from inside this network namespace. */
  readonly state: 'good' | 'change' | 'attention' | 'fixed' | 'absent'
  readonly why: string
  readonly distinguishes?: string
  /** What `apply` would write. */
  readonly correction?: string
  /** What it is once it is as wanted; not there for what is only looked at. */
  readonly settled?: string
  readonly knob: Knob
}

/** Changes nothing. `devices`: only these. */
export async function inspect(role: Role, devices?: readonly string[]): Promise<Finding[]> {
  const settings = settingsFor(role, await machine(devices))
  return await Promise.all(settings.map(inspectOne))
}

/**
 * Turns every knob that should be turned, and notes what was there in `note` first, so that a kill in between loses
 * nothing. What was noted by an earlier call stays noted. Returns what was changed and what refused.
 */
export async function apply(
  findings: readonly Finding[],
  note: string,
): Promise<{ changed: Finding[]; refused: { finding: Finding; error: IpprivError }[] }> {
  const changes = findings.filter((finding) => finding.correction !== undefined)
  const before = await readNote(note)
  for (const { name, knob, current } of changes)
    if (!before.some((entry) => entry.name === name)) before.push({ name, knob, value: current! })
  if (changes.length > 0) await writeNote(note, before)
  const changed: Finding[] = []
  const refused: { finding: Finding; error: IpprivError }[] = []
  for (const finding of changes) {
    try {
      await turnKnob(finding.knob, finding.correction!)
      changed.push(finding)
    } catch (error) {
      if (!(error instanceof IpprivError)) throw error
      refused.push({ finding, error })
    }
  }
  return { changed, refused }
}

/**
 * Puts everything back as `note` has it, the last change first. What refuses is gone past, and stays noted for another
 * try. Returns the names of both.
 */
export async function revert(
  note: string,
): Promise<{ reverted: string[]; refused: { name: string; error: IpprivError }[] }> {
  const before = await readNote(note)
  const reverted: string[] = []
  const refused: { name: string; error: IpprivError }[] = []
  for (const { name, knob, value } of before.toReversed()) {
    // A device that is gone since has nothing to be put back.
    if (!(await isHere(knob))) continue
    try {
      await turnKnob(knob, value)
      reverted.push(name)
    } catch (error) {
      if (!(error instanceof IpprivError)) throw error
      refused.push({ name, error })
    }
  }
  const left = before.filter((entry) => refused.some(({ name }) => name === entry.name))
  if (left.length > 0) await writeNote(note, left)
  else await rm(note, { force: true })
  return { reverted, refused }
}

/**
 * Every sysctl of the role as a file for /etc/sysctl.d; devices are not of its kind. Also those that hold now: they
 * may hold because of the file that this one replaces.
 */
export function sysctlFile(role: Role, findings: readonly Finding[]): string {
  const lines = findings.flatMap(({ name, knob, settled: value, why, state }) => {
    if (knob.kind !== 'sysctl' || value === undefined) return []
    // sysctl.d(5): with a dash, a kernel that has no such setting when it boots is no error.
    const dash = state === 'absent' || state === 'fixed' ? '-' : ''
    return [`# ${why}`, `${dash}${name} = ${value}`]
  })
  return [
    `# IPpriv ${role}: written by ippriv tune --role ${role}. Remove the file to go back.`,
    ...lines,
    '',
  ].join('\n')
}

async function inspectOne(setting: Setting): Promise<Finding> {
  const { name, knob, why, distinguishes } = setting
  const current = await readKnob(knob)
  const value = settled(setting, current)
  const common = {
    name,
    knob,
    why,
    wanted: wantedText(setting),
    ...(distinguishes === undefined ? {} : { distinguishes }),
    ...(value === undefined ? {} : { settled: value }),
  }
  if (current === undefined) return { ...common, current: null, state: 'absent' }
  const better = correction(setting, current)
  if (better === undefined)
    return { ...common, current, state: isFineAsIs(setting, current) ? 'good' : 'attention' }
  if (!(await isTurnable(knob))) return { ...common, current, state: 'fixed' }
  return { ...common, current, state: 'change', correction: better }
}

interface NoteEntry {
  readonly name: string
  readonly knob: Knob
  readonly value: string
}

async function readNote(file: string): Promise<NoteEntry[]> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw unusable(file, error)
  }
  try {
    return JSON.parse(text) as NoteEntry[]
  } catch (error) {
    throw unusable(file, error)
  }
}

async function writeNote(file: string, entries: readonly NoteEntry[]): Promise<void> {
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 })
    await writeFile(`${file}.new`, JSON.stringify(entries), { mode: 0o600, flush: true })
    await rename(`${file}.new`, file)
  } catch (error) {
    throw unusable(file, error)
  }
}

const unusable = (file: string, error: unknown): IpprivError =>
  new IpprivError('IPP_STATE_UNUSABLE', `${file}: ${(error as Error).message}`, { cause: error })
