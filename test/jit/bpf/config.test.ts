/* What the CPU and the kernel's build change. */

import { describe, expect, test } from 'vitest';
import {
  BPF_JMP,
  BPF_NOSPEC,
  BPF_ST,
  BPF_TAIL_CALL,
  type BpfJitConfig,
  disassemble,
  PLAIN_BPF_JIT_CONFIG,
} from '../../../jit/index.ts';
import { kaddr, toHex } from '../../../lib/index.ts';
import { bytesOf, exit, IMAGE, image, insn } from './programs.ts';

const REVISIONS = ['v5.15', 'v6.1', 'v6.12'] as const;
const NEWER = ['v6.1', 'v6.12'] as const;

const thunks = {
  indirectRcx: kaddr(0xffff_ffff_81e0_1000n),
  itsRcx: kaddr(0xffff_ffff_81e0_2000n),
  return: kaddr(0xffff_ffff_81e0_3000n),
  clearBhbLoop: kaddr(0xffff_ffff_81e0_4000n),
};

const ON = {
  ibt: true,
  sls: true,
  retpolineLfence: true,
  its: true,
  rethunk: true,
  bhbLoop: true,
  bhbHw: true,
  hypervisor: true,
  capSysAdmin: false,
  bmi2: true,
  cfi: 'kcfi',
} as const;

test('v5.15 knows of none of the newer ones', () => {
  const insns = [insn(BPF_JMP | BPF_TAIL_CALL), insn(0x6f, { dst: 1, src: 2 }), exit];
  for (const wasClassic of [false, true]) {
    const plain = image('v5.15', insns, { wasClassic });
    expect(image('v5.15', insns, { wasClassic, config: { ...ON, thunks } }).bytes).toEqual(plain.bytes);
  }
});

test('v6.1 knows neither of BMI2 nor of CFI, v6.12 of both', () => {
  const insns = [insn(0x6f, { dst: 1, src: 2 }), exit];
  const config = { bmi2: true, cfi: 'kcfi' } as const;
  expect(image('v6.1', insns, { config }).bytes).toEqual(image('v6.1', insns).bytes);
  expect(bytesOf(image('v6.12', insns, { config }), 0)).toBe('c4e2c9f7ff');
  expect(image('v6.12', insns, { config }).addrs[0]).toBe((image('v6.12', insns).addrs[0] as number) + 16);
});

describe.each(NEWER)('%s: an indirect jump', (revision) => {
  /** The instructions from the one behind `add rcx` on, up to the end of the tail call. */
  function jump(config: Partial<BpfJitConfig>): string[] {
    const made = image(revision, [insn(BPF_JMP | BPF_TAIL_CALL), exit], { config: { ...config, thunks } });
    const rows = disassemble(made.bytes.subarray(0, made.addrs[1]), IMAGE);
    const last = rows.findIndex(({ text }) => /^add +rcx/.test(text));
    return rows.slice(last + 1).map(({ text }) => text.replace(/ +/, ' '));
  }
  const its = ['jmp 0xffffffff81e02000'];
  const lfence = ['lfence', 'jmp rcx'];
  const retpoline = ['jmp 0xffffffff81e01000'];

  test.each([
    [{}, ['jmp rcx']],
    [{ sls: true }, ['jmp rcx', 'int3']],
    [{ retpoline: true }, retpoline],
    [{ retpoline: true, sls: true }, retpoline],
    [{ retpolineLfence: true }, lfence],
    [{ retpolineLfence: true, sls: true }, lfence],
    [{ retpoline: true, retpolineLfence: true }, lfence],
    [{ its: true }, its],
    [{ its: true, retpoline: true }, its],
    [{ its: true, retpolineLfence: true, sls: true }, its],
  ])('%j', (config, wanted) => {
    expect(jump(config)).toEqual(wanted);
  });
});

describe.each(NEWER)('%s: what stands before a classic program returns', (revision) => {
  const LOOP = '5051e8';
  const FENCE = 'f3480f1ef8';

  function barrier(config: Partial<BpfJitConfig>, wasClassic = true): string {
    const made = image(revision, [exit], { wasClassic, config: { capSysAdmin: false, ...config, thunks } });
    const text = bytesOf(made, 0);
    expect(text.endsWith('c9c3')).toBe(true);
    return text.slice(0, -4).replace(/^5051e8.{8}5958/, LOOP);
  }

  test.each([
    [{}, ''],
    [{ bhbLoop: true }, LOOP],
    [{ bhbHw: true }, FENCE],
    [{ hypervisor: true }, ''],
    [{ bhbLoop: true, hypervisor: true }, LOOP + FENCE],
    [{ bhbHw: true, hypervisor: true }, FENCE],
    [{ bhbLoop: true, bhbHw: true }, LOOP + FENCE],
  ])('%j', (config, wanted) => {
    expect(barrier(config)).toBe(wanted);
    expect(barrier({ ...config, capSysAdmin: true })).toBe('');
    expect(barrier(config, false)).toBe('');
  });
});

test('the barrier against speculative stores is taken for granted in v6.12 alone', () => {
  for (const revision of REVISIONS) {
    const nospec = (sse2: boolean): string =>
      bytesOf(image(revision, [insn(BPF_ST | BPF_NOSPEC), exit], { config: { sse2 } }), 0);
    expect(nospec(true)).toBe('0faee8');
    expect(nospec(false)).toBe(revision === 'v6.12' ? '0faee8' : '');
  }
});

test('a return is a thunk, or ret, which may be followed by int3', () => {
  const ret = (config: Partial<BpfJitConfig>): string =>
    bytesOf(image('v6.1', [exit], { config: { ...config, thunks } }), 0);
  expect(ret({})).toBe('c9c3');
  expect(ret({ sls: true })).toBe('c9c3cc');
  expect(ret({ rethunk: true, sls: true })).toMatch(/^c9e9.{8}$/);
});

test('the plain configuration is off in everything that a CPU may have', () => {
  const { sse2, capSysAdmin, cfi, ...rest } = PLAIN_BPF_JIT_CONFIG;
  expect([sse2, capSysAdmin, cfi]).toEqual([true, true, 'off']);
  expect(Object.values(rest).filter((value) => typeof value === 'boolean')).toEqual(Array(10).fill(false));
  expect(toHex(image('v6.12', [exit]).bytes)).toBe('0f1f4400000f1f00554889e5c9c3');
});
