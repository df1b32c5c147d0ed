import assert from 'node:assert/strict'
import { test } from 'node:test'
import { draw, flat, fold, type Profile } from '../../bench/flame.ts'

const node = (id: number, functionName: string, file: string, children: number[] = []) => ({
  id,
  callFrame: { functionName, url: file === '' ? '' : `file:///x/src/linux/${file}`, lineNumber: 9 },
  children,
})

/** Of 100 us of work, 60 in sendmmsg and 40 in the engine; the rest waits, or starts the program. */
const PROFILE: Profile = {
  nodes: [
    node(1, '(root)', '', [2, 7]),
    node(2, '#loop', 'plane-worker.ts', [3, 6]),
    node(3, '#work', 'plane-worker.ts', [4, 5]),
    node(4, 'send', 'esp-socket.ts'),
    node(5, '<engine>', 'engine.ts'),
    node(6, 'wait', 'ffi.ts'),
    node(7, 'compile', ''),
  ],
  samples: [7, 2, 6, 4, 5, 4],
  timeDeltas: [500, 300, 200, 30, 40, 30],
}

test('only work counts, and the time of a system call is the kernel’s', () => {
  const root = fold(PROFILE)
  assert.equal(root.total, 100)
  assert.deepEqual(
    flat(root)
      .filter(({ share }) => share > 0)
      .map(({ name, kind, share }) => [name, kind, share]),
    [
      ['send: sendmmsg', 'kernel', 0.6],
      ['<engine> engine.ts:10', 'ours', 0.4],
    ],
  )
})

test('the picture is the same every time, and sound XML', () => {
  const svg = draw(fold(PROFILE), 'a & b')
  const shuffled = { ...PROFILE, nodes: [...PROFILE.nodes].reverse() }
  assert.equal(draw(fold(shuffled), 'a & b'), svg)
  assert.match(svg, /a &amp; b/)
  assert.match(svg, /&lt;engine&gt;/)
  assert.doesNotMatch(svg, /ROW|TXT|NaN/)
  assert.equal(svg.match(/<g>/g)?.length, svg.match(/<\/g>/g)?.length)
})
