/**
 * The memory of a directory as one file, and back. Private keys are not in it.
 *
 *     {"ippriv":"backup","version":1,"store":"authority","made":1767225600}
 *     ["node!<nodeId>","<value>"]
 *     ...
 *     {"entries":1234,"sha256":"<of all lines before>"}
 *
 * What is restored must not repeat itself: an authority sits out the period it is restored in, and a directory that
 * decides alone goes on with serials that it cannot have used since.
 */
import { createHash } from 'node:crypto'
import { open, readFile, rename } from 'node:fs/promises'
import { Level } from 'level'
import type { UnixTime } from '#base/time'
import { guarded } from '#directory/store'

/** `authority`: one of several; `directory`: decides alone. The folder is `<store>.level`. */
export type StoreKind = 'authority' | 'directory'

type Entry = readonly [key: string, value: string]

/** Writes the file whole or not at all. Returns how many entries it has. @throws IpprivError IPP_STATE_UNUSABLE */
export async function writeBackup(
  entries: AsyncIterable<Entry>,
  store: StoreKind,
  file: string,
  now: UnixTime,
): Promise<number> {
  const hash = createHash('sha256')
  let count = 0
  return await guarded(file, async () => {
    const draft = `${file}.new`
    await using handle = await open(draft, 'w', 0o600)
    const line = async (value: object): Promise<void> => {
      const text = `${JSON.stringify(value)}\n`
      hash.update(text)
      await handle.writeFile(text)
    }
    await line({ ippriv: 'backup', version: 1, store, made: now })
    for await (const [key, value] of entries) {
      await line([key, value])
      count++
    }
    await handle.writeFile(`${JSON.stringify({ entries: count, sha256: hash.digest('hex') })}\n`)
    await handle.sync()
    await rename(draft, file)
    return count
  })
}

/** Of a directory that does not run. @throws IpprivError IPP_STATE_UNUSABLE: also when it does run */
export async function backupFolder(
  folder: string,
  store: StoreKind,
  file: string,
  now: UnixTime,
): Promise<number> {
  const db = new Level<string, string>(folder, { createIfMissing: false })
  await guarded(folder, () => db.open())
  try {
    return await writeBackup(db.iterator(), store, file, now)
  } finally {
    await db.close()
  }
}

/**
 * Makes the folder anew from a backup; it must be empty or absent. `period`: seconds.
 * @throws IpprivError IPP_STATE_UNUSABLE: the file is damaged or of another kind, or the folder holds something
 */
export async function restoreFolder(
  file: string,
  store: StoreKind,
  folder: string,
  { now, period }: { readonly now: UnixTime; readonly period: number },
): Promise<number> {
  const { entries, made } = await readBackup(file, store)
  const db = new Level<string, string>(folder)
  await guarded(folder, () => db.open())
  try {
    await guarded(folder, async () => {
      for await (const _ of db.keys({ limit: 1 })) throw new Error('it is not empty: move it away first')
      const restored = new Map(entries)
      if (store === 'authority') {
        // Whatever was said since, nothing is said of this period or the next again.
        const next = String(Math.floor(now / period) + 1)
        restored.set('meta!voted', next)
        restored.set('meta!signed', next)
      } else {
        // At most one document a second was made since.
        const serial = Number(restored.get('meta!serial') ?? 0) + Math.max(0, now - made) + 1
        restored.set('meta!serial', String(serial))
        restored.delete('meta!consensus')
      }
      await db.batch(
        [...restored].map(([key, value]) => ({ type: 'put' as const, key, value })),
        { sync: true },
      )
    })
    return entries.length
  } finally {
    await db.close()
  }
}

async function readBackup(
  file: string,
  store: StoreKind,
): Promise<{ readonly entries: readonly Entry[]; readonly made: number }> {
  return await guarded(file, async () => {
    const text = await readFile(file, 'utf8')
    const cut = text.lastIndexOf('\n', text.length - 2) + 1
    const lines = text.slice(0, cut).split('\n').slice(0, -1)
    const end = JSON.parse(text.slice(cut)) as { entries?: unknown; sha256?: unknown }
    const digest = createHash('sha256').update(text.slice(0, cut)).digest('hex')
    if (end.sha256 !== digest || end.entries !== lines.length - 1) throw new Error('the backup is damaged')
    const head = JSON.parse(lines[0]!) as {
      ippriv?: unknown
      version?: unknown
      store?: unknown
      made?: unknown
    }
    if (head.ippriv !== 'backup' || head.version !== 1 || typeof head.made !== 'number')
      throw new Error('it is no backup of a directory')
    if (head.store !== store) throw new Error(`it is a backup of another kind, ${String(head.store)}`)
    return { entries: lines.slice(1).map((line) => JSON.parse(line) as Entry), made: head.made }
  })
}
