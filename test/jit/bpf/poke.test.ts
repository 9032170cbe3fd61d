/* Direct tail calls: what is patched when the slot of the map changes, on images as the kernels make them. */

import { describe, expect, test } from 'vitest';
import {
  type BpfImage,
  compileBpf,
  decidePoke,
  disassemble,
  NOP5,
  type PokeDescriptor,
  tailCallPokes,
} from '../../../jit/index.ts';
import { addrAdd, type Kaddr, kaddr, toHex } from '../../../lib/index.ts';
import { type BpfJitVector, bpfJitVectors, VECTOR_REVISIONS, type VectorRevision } from './vectors.ts';

const A = kaddr(0xffff_ffff_c000_8000n);
const B = kaddr(0xffff_ffff_c000_9000n);

/** A live image: what `tailCallPokes` says is done by the rule of text pokes. */
class Live {
  readonly bytes: Uint8Array;
  readonly log: string[] = [];
  readonly #at: Kaddr;

  constructor(image: BpfImage, at: Kaddr) {
    this.bytes = image.bytes.slice();
    this.#at = at;
  }

  change(poke: PokeDescriptor, before: Kaddr | null, after: Kaddr | null): void {
    for (const step of tailCallPokes(this.#at, poke, before, after)) {
      this.log.push(step.place);
      if (step.place === 'synchronize_rcu') continue;
      const offset = Number(step.poke.ip - this.#at);
      const { ret, write } = decidePoke('v5.15', step.poke, this.bytes.subarray(offset));
      expect(ret).toBe(0);
      this.bytes.set(write as Uint8Array, offset);
    }
  }

  /** Where the jump at an offset goes; `nop` when there is none. */
  goes(offset: number): Kaddr | 'nop' {
    const bytes = this.bytes.subarray(offset, offset + 5);
    if (toHex(bytes) === toHex(Uint8Array.from(NOP5))) return 'nop';
    const [row] = disassemble(bytes, addrAdd(this.#at, offset));
    expect(row?.mnemonic).toBe('jmp');
    return row?.target as Kaddr;
  }
}

const directCalls = (revision: VectorRevision): readonly BpfJitVector[] =>
  bpfJitVectors(revision).filter(({ expected }) => 'poke' in expected && expected.poke.length > 0);

describe.each(VECTOR_REVISIONS)('%s', (revision) => {
  test('a slot is filled, replaced, emptied and filled again', () => {
    const vectors = directCalls(revision);
    expect(vectors.length).toBeGreaterThan(20);
    for (const { program, config } of vectors) {
      const image = compileBpf(revision, program, config);
      if (image.bytes === undefined) throw new Error('refused');
      for (const poke of image.pokes) {
        const live = new Live(image, program.image);
        const out = addrAdd(program.image, poke.target + 5);
        const state = (): unknown[] => [live.goes(poke.bypass), live.goes(poke.target)];
        expect(state()).toEqual([out, 'nop']);
        live.change(poke, null, A);
        expect(state()).toEqual(['nop', addrAdd(A, poke.adjOff)]);
        live.change(poke, A, B);
        expect(state()).toEqual(['nop', addrAdd(B, poke.adjOff)]);
        live.change(poke, B, null);
        expect(state()).toEqual([out, 'nop']);
        expect(live.bytes).toEqual(image.bytes);
        live.change(poke, null, null);
        live.change(poke, null, A);
        // whoever passes the bypass finds a jump behind it, at every moment
        expect(live.log).toEqual([
          ...['target', 'bypass'],
          'target',
          ...['bypass', 'synchronize_rcu', 'target'],
          ...['target', 'bypass'],
        ]);
      }
    }
  });

  test('entries are told by their number, in its order', () => {
    const several = directCalls(revision).filter(
      ({ expected }) => 'poke' in expected && expected.poke.length > 1,
    );
    expect(several.length).toBeGreaterThan(0);
    for (const { program, config } of several) {
      const image = compileBpf(revision, program, config);
      expect(image.bytes === undefined ? [] : image.pokes.map(({ entry }) => entry)).toEqual(
        Array.from({ length: image.bytes === undefined ? 0 : image.pokes.length }, (_, i) => i + 1),
      );
    }
  });
});
