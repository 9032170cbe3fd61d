/* Both sides of a compiled program. */

import { describe, expect, test } from 'vitest';
import {
  BPF_CALL,
  BPF_JMP,
  BPF_LDX,
  BPF_PROBE_MEM,
  BPF_W,
  compileBpf,
  formatBpfListing,
  listBpf,
  PLAIN_BPF_JIT_CONFIG,
} from '../../../jit/index.ts';
import { Bug, toHex } from '../../../lib/index.ts';
import { exit, insn, ja, ldImm64, movImm, program } from './programs.ts';

function listed(source: ReturnType<typeof program>, provenance = true) {
  const image = compileBpf('v6.12', source, PLAIN_BPF_JIT_CONFIG, { provenance });
  if (image.bytes === undefined) throw new Bug(image.fail);
  return { image, parts: listBpf(source, image, PLAIN_BPF_JIT_CONFIG) };
}

const SOURCE = program(
  [
    movImm(1, 0),
    ...ldImm64(2, 0x1_0000_0005n),
    insn(BPF_LDX | BPF_PROBE_MEM | BPF_W, { dst: 0, src: 2, off: 4 }),
    insn(BPF_JMP | BPF_CALL, { imm: 0x10 }),
    ja(0),
    exit,
    exit,
  ],
  { numExentries: 1 },
);

describe('a listing', () => {
  test('has a part for the prologue and for every instruction, in order, some of them empty', () => {
    const { image, parts } = listed(SOURCE);
    expect(parts.map(({ insn: index, text }) => [index, text])).toEqual([
      [undefined, 'prologue'],
      [0, '0: (b7) r1 = 0'],
      [1, '1: (18) r2 = 0x100000005'],
      [3, '3: (21) r0 = *(u32 *)(r2 +4) ; probe'],
      [4, '4: (85) call 0xffffffff81200010'],
      [5, '5: (05) goto pc+0'],
      [6, '6: (95) exit'],
      [7, '7: (95) exit'],
    ]);
    expect(parts[5]?.rows).toEqual([]);
    expect(parts.flatMap(({ rows }) => rows.map(({ bytes }) => bytes)).join('')).toBe(toHex(image.bytes));
    expect(parts[3]?.rows.map(({ note }) => note)).toContain('not tried');
    expect(parts[4]?.rows[0]?.instruction).toMatch(/^call +0xffffffff81200010$/);
  });

  test('shows the instructions of the extra pass where there is one', () => {
    const call = (imm: number) => insn(BPF_JMP | BPF_CALL, { src: 1, imm });
    const { parts } = listed(program([call(1), exit], { final: [call(0x400), exit] }));
    expect(parts[1]?.text).toBe('0: (85) call 0xffffffff81200400');
  });

  test("as text: headings, and a line for each of the machine's instructions", () => {
    const { parts } = listed(program([movImm(1, 7), exit]));
    const text = formatBpfListing(parts, (kind, cell) => (kind === 'heading' ? `# ${cell}` : cell));
    expect(text.split('\n')).toEqual([
      '# prologue',
      expect.stringMatching(/^ {2}ffffffffc0012340 {2}0f1f440000 {2}nop/),
      expect.stringMatching(/^ {2}ffffffffc0012345 {2}0f1f00 {6}nop/),
      expect.stringMatching(/^ {2}ffffffffc0012348 {2}55 {10}push/),
      expect.stringMatching(/^ {2}ffffffffc0012349 {2}4889e5 {6}mov/),
      '# 0: (b7) r1 = 7',
      expect.stringMatching(/^ {2}ffffffffc001234c {2}bf07000000 {2}mov +edi, 7$/),
      '# 1: (95) exit',
      expect.stringMatching(/^ {2}ffffffffc0012351 {2}c9 {10}leave/),
      expect.stringMatching(/^ {2}ffffffffc0012352 {2}c3 {10}ret$/),
      '',
    ]);
  });

  test('is empty for what was compiled without provenance', () => {
    expect(listed(SOURCE, false).parts).toEqual([]);
  });
});
