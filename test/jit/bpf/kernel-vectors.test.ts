/* The JIT against the kernels' own answers, and against a decoder that knows nothing of our assembler. */

import { describe, expect, test } from 'vitest';
import { compileBpf, disassemble } from '../../../jit/index.ts';
import { asAnswer, bpfJitVectors, VECTOR_REVISIONS } from './vectors.ts';

const COUNTS = { 'v5.15': 859, 'v6.1': 906, 'v6.12': 1059 } as const;

describe.each(VECTOR_REVISIONS)('%s', (revision) => {
  const vectors = bpfJitVectors(revision);

  test('gives what the kernel gave: bytes, ends, passes, exception entries, poke places, refusals', () => {
    expect(vectors).toHaveLength(COUNTS[revision]);
    for (const { id, group, program, config, expected } of vectors) {
      const answer = asAnswer(compileBpf(revision, program, config));
      expect({ id, group, ...answer }).toEqual({ id, group, ...expected });
    }
  });

  test('every image decodes to its end, and every eBPF instruction ends where one of the machine does', () => {
    for (const { id, program, config } of vectors) {
      const image = compileBpf(revision, program, config, { provenance: true });
      if (image.bytes === undefined) continue;
      const rows = disassemble(image.bytes, program.image);
      const ends = new Set(rows.map((row) => row.offset + row.sizeBytes).concat(0));
      expect(rows.filter((row) => !row.valid).map((row) => [id, row.offset])).toEqual([]);
      expect(ends.has(image.bytes.length)).toBe(true);
      const ranges = image.provenance?.ranges ?? [];
      expect(ranges.filter((range) => !ends.has(range.end)).map((range) => [id, range])).toEqual([]);
      // each of our instructions is one of the decoder's
      expect(image.provenance?.code.insns.map((insn) => insn.offset)).toEqual(rows.map((row) => row.offset));
    }
  });
});
