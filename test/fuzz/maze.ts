/** For the test of the fuzzer itself: a place that only an input gets to that goes there step by step. */
export function maze(input: Uint8Array): void {
  const wanted = [0x69, 0x70, 0x70, 0x72]
  if (input[0] === wanted[0]) {
    if (input[1] === wanted[1]) {
      if (input[2] === wanted[2]) {
        if (input[3] === wanted[3]) throw new Error('the middle of the maze')
      }
    }
  }
}
