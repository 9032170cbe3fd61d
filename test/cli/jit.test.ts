/* `tramplab jit`: eBPF programs in, what the kernels' JITs make of them out. */

import { describe, expect, test } from 'vitest';
import { type Answer, bpfJitVectors, VECTOR_REVISIONS } from '../jit/bpf/vectors.ts';
import { jsonLines, tramplab } from './support.ts';

const SIMPLE = {
  id: 1,
  revision: 'v6.12',
  image: '0xffffffffc0012340',
  insns: 'b7000000010000009500000000000000',
  config: { base: '0xffffffff81200210' },
};
const SIMPLE_BYTES = '0f1f4400000f1f00554889e5b801000000c9c3';

/** An answer of the command, in the vectors' form. */
function asVector({ fail, id: _, ...answer }: Readonly<Record<string, unknown>>): Answer {
  if (fail !== undefined) return { failInPass: Number.parseInt(fail as string, 10) };
  return answer as unknown as Answer;
}

describe('jit', () => {
  test('gives what the kernels gave, for every vector of every revision, in one process', async () => {
    const vectors = VECTOR_REVISIONS.flatMap((revision) => bpfJitVectors(revision));
    expect(vectors.length).toBeGreaterThan(2800);
    const input = vectors.map(({ line }) => JSON.stringify(line)).join('\n');
    const { status, stdout, stderr } = await tramplab(['jit'], { input });
    expect([status, stderr]).toEqual([0, '']);
    const answers = jsonLines(stdout);
    expect(answers).toHaveLength(vectors.length);
    for (const [i, { id, expected }] of vectors.entries()) {
      const answer = answers[i] ?? {};
      expect([id, answer['id'], asVector(answer)]).toEqual([id, id, expected]);
    }
  });

  test('v5.13 compiles as v5.15; v5.15.0 is known', async () => {
    const lines = ['v5.13', 'v5.15', 'v5.15.0'].map((revision) => JSON.stringify({ ...SIMPLE, revision }));
    const { status, stdout } = await tramplab(['jit'], { input: lines.join('\n') });
    const answers = jsonLines(stdout);
    expect(status).toBe(0);
    expect(answers[0]).toEqual(answers[1]);
    expect(answers).toMatchObject(Array(3).fill({ bytes: '0f1f4400006690554889e5b801000000c9c3' }));
  });

  test('answers a line that cannot be used in its place, and all others', async () => {
    const bad: readonly (readonly [line: string, error: string])[] = [
      ['{', 'not JSON'],
      [JSON.stringify({ ...SIMPLE, revision: 'v9' }), 'wanted v5.13 or v5.15.0 or v5.15 or v6.1 or v6.12'],
      [JSON.stringify({ ...SIMPLE, image: undefined }), 'image: missing'],
      [JSON.stringify({ ...SIMPLE, insns: undefined }), 'insns: missing'],
      [JSON.stringify({ ...SIMPLE, insns: '' }), 'insns: wanted instructions of 8 bytes, as hex'],
      [JSON.stringify({ ...SIMPLE, insns: 'b70000000100' }), 'insns: wanted instructions of 8 bytes'],
      [JSON.stringify({ ...SIMPLE, insns: 'zz00000001000000' }), 'insns: wanted instructions of 8 bytes'],
      [JSON.stringify({ ...SIMPLE, is_func: 1 }), 'final: missing'],
      [
        JSON.stringify({ ...SIMPLE, is_func: 1, final: '9500000000000000' }),
        'final: 1 slots; the first run has 2',
      ],
      [JSON.stringify({ ...SIMPLE, sd: -8 }), 'sd: -8; wanted an integer'],
      [JSON.stringify({ ...SIMPLE, sd: 1e6 }), 'stack depth: 1000000; wanted 0 to 65535'],
      [JSON.stringify({ ...SIMPLE, tcr: 2 }), 'tcr: 2; wanted 0 or 1'],
      [JSON.stringify({ ...SIMPLE, akern: 5 }), 'akern: 5; wanted an address'],
      [JSON.stringify({ ...SIMPLE, config: { cfi: 3 } }), 'config.cfi: wanted 0, 1 for kCFI or 2'],
      [JSON.stringify({ ...SIMPLE, config: { cfi: 2 } }), 'config.cfi: fineibt needs ibt'],
      [JSON.stringify({ ...SIMPLE, config: { base: 1 } }), 'config.base: 1; wanted an address'],
      [JSON.stringify({ ...SIMPLE, insns: 'b70c000001000000' }), 'insns slot 0: register r12; there are r0'],
      [JSON.stringify({ ...SIMPLE, insns: '0500050000000000' }), 'insns slot 0: a jump by 5 leaves'],
      [JSON.stringify({ ...SIMPLE, insns: `b70000000100000018${'0'.repeat(14)}` }), 'insns slot 1: half a'],
      [
        JSON.stringify({ ...SIMPLE, insns: 'f5000000ffffffff' }),
        'insns slot 0: a tail call by poke entry -1',
      ],
    ];
    const good = JSON.stringify(SIMPLE);
    const lines = bad.flatMap(([line]) => [line, good, '']);
    const { status, stdout, stderr } = await tramplab(['jit'], { input: lines.join('\n') });
    expect([status, stderr]).toEqual([2, '']);
    const answers = jsonLines(stdout);
    expect(answers).toHaveLength(2 * bad.length);
    for (const [i, [, error]] of bad.entries()) {
      expect(answers[2 * i]?.['error']).toContain(`line ${3 * i + 1}: `);
      expect(answers[2 * i]?.['error']).toContain(error);
      expect(answers[2 * i + 1]).toMatchObject({ id: 1, bytes: SIMPLE_BYTES, ex: [], poke: [] });
    }
  });

  test('a refusal is an answer and no error', async () => {
    const input = JSON.stringify({ ...SIMPLE, insns: '8500000000000000' });
    const { status, stdout } = await tramplab(['jit'], { input });
    expect([status, jsonLines(stdout)]).toEqual([0, [{ id: 1, fail: '1 call of nothing' }]]);
  });

  test('needs neither emulator nor disassembler, unless it lists', async () => {
    const tell =
      "import m from 'node:module'; process.on('exit', () => console.error(Object.keys(m._cache).join()))";
    const node = ['--import', `data:text/javascript,${encodeURIComponent(tell)}`];
    const input = JSON.stringify(SIMPLE);
    const { stderr } = await tramplab(['jit'], { input, node });
    expect(stderr).toContain('commander');
    for (const name of ['koffi', 'iced-x86']) expect(stderr).not.toContain(name);
    expect((await tramplab(['jit', '--listing'], { input, node })).stderr).toContain('iced-x86');
  });
});

describe('jit --listing', () => {
  const program = {
    ...SIMPLE,
    insns: [
      'b700000001000000', // r0 = 1
      '8500000010200000', // call
      '1800000000000000ff00000001000000', // r0 = 0x100000000; whatever the second slot's opcode
      '0500000000000000', // goto pc+0
      '9500000000000000',
    ].join(''),
  };

  test('for people: each eBPF instruction and what it became; a refusal; an error in its place', async () => {
    const lines = [program, { ...SIMPLE, id: 'two', insns: '8500000000000000' }, { id: 3 }];
    const input = lines.map((line) => JSON.stringify(line)).join('\n');
    const { status, stdout, stderr } = await tramplab(['jit', '--listing'], { input });
    expect([status, stderr]).toEqual([2, '']);
    expect(stdout.split('\n')).toEqual([
      'program 1: 34 bytes at 0xffffffffc0012340, 3 passes',
      '',
      'prologue',
      expect.stringMatching(/^ {2}ffffffffc0012340 {2}0f1f440000 {2,}nop .* where trampolines hook in$/),
      expect.stringMatching(/^ {2}ffffffffc0012345 {2}0f1f00 {2,}nop /),
      expect.stringMatching(/^ {2}ffffffffc0012348 {2}55 {2,}push +rbp$/),
      expect.stringMatching(/^ {2}ffffffffc0012349 {2}4889e5 {2,}mov +rbp, rsp$/),
      '0: (b7) r0 = 1',
      expect.stringMatching(/^ {2}ffffffffc001234c {2}b801000000 {2,}mov +eax, 1$/),
      '1: (85) call 0xffffffff81202220',
      expect.stringMatching(/^ {2}ffffffffc0012351 {2}e8cafe1ec1 {2,}call +0xffffffff81202220$/),
      '2: (18) r0 = 0x100000000',
      expect.stringMatching(/^ {2}ffffffffc0012356 {2}48b80000000001000000 {2}mov +rax, 0x100000000$/),
      '4: (05) goto pc+0',
      '5: (95) exit',
      expect.stringMatching(/^ {2}ffffffffc0012360 {2}c9 {2,}leave /),
      expect.stringMatching(/^ {2}ffffffffc0012361 {2}c3 {2,}ret$/),
      '',
      'program two: refused in pass 1: call of nothing',
      '',
      '{"id":3,"error":"line 3: revision: missing; wanted v5.13 or v5.15.0 or v5.15 or v6.1 or v6.12"}',
      '',
    ]);
  });

  test('for machines: the parts beside the bytes, which are the same', async () => {
    const input = JSON.stringify(program);
    const [listed] = jsonLines((await tramplab(['jit', '--listing', '--json'], { input })).stdout);
    const [compiled] = jsonLines((await tramplab(['jit'], { input })).stdout);
    const { listing, ...rest } = listed as Record<string, unknown>;
    expect(rest).toEqual(compiled);
    const parts = listing as { readonly insn?: number; readonly rows: { readonly bytes: string }[] }[];
    expect(parts.map(({ insn }) => insn)).toEqual([undefined, 0, 1, 2, 4, 5]);
    expect(parts.flatMap(({ rows }) => rows.map(({ bytes }) => bytes)).join('')).toBe(compiled?.['bytes']);
  });
});
