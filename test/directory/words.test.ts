import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8 } from '#base/bytes'
import { signConsensus, verifyConsensus } from '#directory/consensus'
import { listedWords, steadyWords, WORDS_LAST } from '#directory/words'
import { AUTHORITY, at, crypto, describe, draft, listed, START, value } from './network.ts'

test('a node that signs itself anew and says nothing new keeps its words, for a week', () => {
  const [alder] = listed(['alder'])
  const last = new Map([[alder!.descriptor.nodeId, alder!]])
  const says = (changes: Parameters<typeof describe>[1], seconds: number) => {
    const node = { ...alder!, ...describe('alder', changes) }
    const [chosen] = steadyWords([node], last, at(seconds))
    assert.equal(chosen!.pool, alder!.pool)
    return chosen!.text === alder!.text ? 'as before' : chosen!.text === node.text ? 'new' : 'neither'
  }
  assert.equal(says({ published: at(1800) }, 3600), 'as before')
  assert.equal(says({ published: at(1800), software: 'ippriv 9' }, 3600), 'as before')
  assert.equal(says({ published: at(1800), port: 501 }, 3600), 'new')
  assert.equal(says({ published: at(WORDS_LAST) }, WORDS_LAST), 'as before')
  assert.equal(says({ published: at(WORDS_LAST) }, WORDS_LAST + 1), 'new')
  // What is listed is newer than what is known here: it is not ours to repeat.
  assert.equal(says({ published: at(-1) }, 10), 'new')
  const [birch] = listed(['birch'])
  assert.deepEqual(steadyWords([birch!], last, at(10)), [birch])
})

test('the words of a document, letter for letter', () => {
  const nodes = listed(['alder', 'birch'])
  const { text } = value(signConsensus(draft(nodes), [AUTHORITY], crypto))
  const consensus = value(
    verifyConsensus(utf8(text), { authorities: [AUTHORITY.publicKey], now: START }, crypto),
  )
  const words = listedWords(text, consensus)
  assert.deepEqual(
    [...words.values()].toSorted((a, b) => (a.descriptor.name < b.descriptor.name ? -1 : 1)),
    nodes,
  )
})
