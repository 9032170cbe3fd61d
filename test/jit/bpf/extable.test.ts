/* What stands behind the code, and what it comes to when an access faults. */

import { describe, expect, test } from 'vitest';
import {
  BPF_LDX,
  BPF_PROBE_ATOMIC,
  type BpfInsn,
  bpfClass,
  bpfHome,
  bpfMode,
  compileBpf,
  EX_ENTRY_BYTES,
  exFixups,
  exTableOffset,
  withExTable,
} from '../../../jit/index.ts';
import { addrDistance, kaddr } from '../../../lib/index.ts';
import { bpfJitVectors, VECTOR_REVISIONS } from './vectors.ts';

const ARENA = 0xa0;

describe.each(VECTOR_REVISIONS)('%s', (revision) => {
  const faulting = bpfJitVectors(revision).filter(({ program, expected }) => {
    return program.numExentries > 0 && 'bytes' in expected;
  });

  test('every access goes on behind its own instruction; a load gives 0, a store nothing', () => {
    expect(faulting.length).toBeGreaterThan(80);
    for (const { program, config } of faulting) {
      const image = compileBpf(revision, program, config, { provenance: true });
      if (image.bytes === undefined) throw new Error('refused');
      const fixups = exFixups(image.exTable);
      expect(fixups.size).toBe(image.exTable.length);
      for (const [offset, { resume, clears }] of fixups) {
        const range = image.provenance?.ranges.find(({ start, end }) => offset >= start && offset < end);
        const insn = (program.final ?? program.insns)[range?.insn ?? -1] as BpfInsn;
        expect(resume).toBe(range?.end);
        expect(clears).toBe(bpfClass(insn.code) === BPF_LDX ? bpfHome(insn.dst) : undefined);
        if (bpfMode(insn.code) === ARENA || bpfMode(insn.code) === BPF_PROBE_ATOMIC) {
          expect(offset).toBe(range?.start);
        }
      }
    }
  });

  test('in memory, entries lie behind the code on a multiple of 4 and are relative to themselves', () => {
    for (const { program, config } of faulting) {
      const image = compileBpf(revision, program, config);
      if (image.bytes === undefined) throw new Error('refused');
      const whole = withExTable(image);
      const table = exTableOffset(image.bytes.length);
      expect(table % 4).toBe(0);
      expect(whole.length).toBe(table + EX_ENTRY_BYTES * image.exTable.length);
      expect(whole.subarray(0, image.bytes.length)).toEqual(image.bytes);
      expect([...whole.subarray(image.bytes.length, table)].every((byte) => byte === 0xcc)).toBe(true);
      const view = new DataView(whole.buffer);
      for (const [i, entry] of image.exTable.entries()) {
        const at = table + EX_ENTRY_BYTES * i;
        expect(view.getInt32(at, true) + at).toBe(entry.insn);
        expect(view.getInt32(at + 4, true)).toBe(entry.fixup);
        const third = view.getInt32(at + 8, true);
        if (revision !== 'v5.15') expect(third).toBe(7);
        else {
          const field = kaddr(program.image + BigInt(at + 8));
          expect(BigInt(third)).toBe(addrDistance(field, config.exHandler));
        }
      }
    }
  });
});

test('without entries there is nothing behind the code', () => {
  const [vector] = bpfJitVectors('v6.1');
  if (vector === undefined) throw new Error('no vectors');
  const image = compileBpf('v6.1', vector.program, vector.config);
  if (image.bytes === undefined) throw new Error('refused');
  expect(withExTable(image)).toEqual(image.bytes);
});
