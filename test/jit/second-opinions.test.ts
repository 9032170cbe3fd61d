/*
 * The same forms against keystone (an assembler) and capstone (a decoder), on a share of the cases.
 *
 * keystone is asked with text, so it chooses the form. It is right on every operand, but it always takes
 * the shortest form, where ours is the one that was asked for: no displacement field that is wider than
 * needed, imm8 before imm32, the one-byte-shorter forms of al, ax, eax and rax, and b0+r / b8+r moves.
 */

import { createRequire } from 'node:module';
import { beforeAll, describe, expect, test } from 'vitest';
import { Assembler, Mem, Reg } from '../../jit/index.ts';
import { kaddr, toHex } from '../../lib/index.ts';
import { type Case, type Expected, FORMS } from './forms.ts';

/** Of that many cases, one is asked about. */
const EVERY = 29;

// Neither package has types that a module resolver finds.
interface KeystoneModule {
  loadKeystone(options: Record<string, unknown>): Promise<void>;
  readonly Keystone: new (arch: number, mode: number) => { asm(text: string): Uint8Array };
  readonly Const: { readonly KS_ARCH_X86: number; readonly KS_MODE_64: number };
}
interface CapstoneModule {
  loadCapstone(options: Record<string, unknown>): Promise<void>;
  readonly Capstone: new (arch: number, mode: number) => { disasm(bytes: Uint8Array): CapstoneInsn[] };
  readonly Const: { readonly CS_ARCH_X86: number; readonly CS_MODE_64: number };
}
interface CapstoneInsn {
  readonly size: number;
  readonly mnemonic: string;
  readonly opStr: string;
}

const quiet = { print: () => undefined, printErr: () => undefined };
const require = createRequire(import.meta.url);

function assembled(wanted: Case): Uint8Array {
  const asm = new Assembler(kaddr(0), { record: false });
  asm.enter('test', undefined);
  wanted.emit(asm);
  return asm.bytes();
}

function* sample(cases: Iterable<Case>): Generator<Case> {
  let i = 0;
  for (const one of cases) if (i++ % EVERY === 0) yield one;
}

const WIDTHS: Readonly<Record<string, string>> = { 8: 'byte', 16: 'word', 32: 'dword', 64: 'qword' };
const MNEMONICS: Readonly<Record<string, string>> = { Leaveq: 'leave', Retnq: 'ret', Nopd: 'nop' };

function mnemonic({ code, lock }: Case): string {
  const [name = ''] = code.replace('VEX_', '').split('_');
  // movabs is how assemblers spell the 64-bit immediate
  const word = code === 'Mov_r64_imm64' ? 'movabs' : (MNEMONICS[name] ?? name.toLowerCase());
  return lock === true ? `lock ${word}` : word;
}

/** How a displacement is written: keystone takes any number, capstone leaves zeros and ones out. */
interface Dialect {
  readonly scaleOf1: string;
  readonly displacement: (disp: number, alone: boolean) => string;
  readonly immediate: (value: bigint) => string;
}

function operandText(operand: Expected, whole: Case, dialect: Dialect): string {
  if (operand instanceof Reg) return operand.name;
  if (!(operand instanceof Mem)) return dialect.immediate(signedImmediate(operand.imm, whole));
  const bits = /_rm(\d+)/.exec(whole.code)?.[1];
  const { base, index, scale, disp, gs } = operand;
  const scaled = scale === 1 ? dialect.scaleOf1 : `*${scale}`;
  const terms = [base?.name, index === undefined ? undefined : `${index.name}${scaled}`];
  const registers = terms.filter((term) => term !== undefined).join(' + ');
  const width = bits === undefined ? '' : `${WIDTHS[bits]} ptr `;
  return `${width}${gs ? 'gs:' : ''}[${registers}${dialect.displacement(disp, registers === '')}]`;
}

function signedImmediate(value: bigint, { operands }: Case): bigint {
  const [first] = operands;
  const bits = first instanceof Reg || first instanceof Mem ? first.size * 8 : 64;
  return BigInt.asIntN(bits, value);
}

const text = (wanted: Case, dialect: Dialect): string =>
  `${mnemonic(wanted)} ${wanted.operands.map((op) => operandText(op, wanted, dialect)).join(', ')}`.trim();

const isRipRelative = ({ operands }: Case): boolean =>
  operands.some((op) => op instanceof Mem && op.rip !== undefined);

describe('keystone assembles the same bytes', () => {
  let keystone: { asm(text: string): Uint8Array };

  beforeAll(async () => {
    const { loadKeystone, Keystone, Const } = require('keystone-wasm') as KeystoneModule;
    await loadKeystone(quiet);
    keystone = new Keystone(Const.KS_ARCH_X86, Const.KS_MODE_64);
  });

  const dialect: Dialect = {
    scaleOf1: '*1',
    // riz is its word for no index: without it, an absolute address becomes a 64-bit one
    displacement: (disp, alone) => `${alone ? 'riz*1' : ''} ${disp < 0 ? '-' : '+'} ${Math.abs(disp)}`,
    immediate: String,
  };

  /** Whether the form asked for is not the shortest there is. */
  function isLongForm({ code, operands, long }: Case): boolean {
    if (long === true) return true;
    const [dst, src] = operands;
    const memory = operands.find((op) => op instanceof Mem);
    if (memory !== undefined && hasLongDisplacement(memory)) return true;
    if (src === undefined || src instanceof Reg || src instanceof Mem) return false;
    const value = signedImmediate(src.imm, { code, operands, emit: () => undefined });
    const alu = /^(Add|Or|Adc|Sbb|And|Sub|Xor|Cmp)_rm(\d+)_imm(\d+)$/.exec(code);
    const accumulator = dst instanceof Reg && dst.num === 0;
    if (alu?.[3] === '8') return accumulator && alu[2] === '8';
    if (alu !== null) return accumulator || (value >= -128n && value <= 127n);
    if (code.startsWith('Test')) return accumulator;
    return /^Mov_rm(8|16|32)_/.test(code) && dst instanceof Reg;
  }

  function hasLongDisplacement({ base, disp, form }: Mem): boolean {
    if (base === undefined) return false;
    if (form === 'disp32') return disp >= -128 && disp <= 127;
    return form === 'disp8' && disp === 0 && base.name !== 'rbp' && base.name !== 'r13';
  }

  test.each(Object.entries(FORMS))('%s', (_, cases) => {
    const wrong: string[] = [];
    for (const wanted of sample(cases())) {
      if (isRipRelative(wanted)) continue;
      const ours = assembled(wanted);
      const line = text(wanted, dialect);
      const theirs = keystone.asm(line);
      const right = isLongForm(wanted) ? theirs.length < ours.length : toHex(theirs) === toHex(ours);
      if (!right) wrong.push(`${line}: ${toHex(ours)}, keystone ${toHex(theirs)}`);
    }
    expect(wrong).toEqual([]);
  });
});

describe('capstone reads the same instruction', () => {
  let capstone: { disasm(bytes: Uint8Array): CapstoneInsn[] };

  beforeAll(async () => {
    const { loadCapstone, Capstone, Const } = require('capstone-wasm') as CapstoneModule;
    await loadCapstone(quiet);
    capstone = new Capstone(Const.CS_ARCH_X86, Const.CS_MODE_64);
  });

  const number = (value: number): string => (value > 9 ? `0x${value.toString(16)}` : String(value));
  const dialect: Dialect = {
    scaleOf1: '',
    displacement: (disp, alone) => {
      if (alone) return disp < 0 ? `0x${BigInt.asUintN(64, BigInt(disp)).toString(16)}` : number(disp);
      return disp === 0 ? '' : ` ${disp < 0 ? '-' : '+'} ${number(Math.abs(disp))}`;
    },
    immediate: () => IMMEDIATE,
  };
  const IMMEDIATE = 'imm';

  /** Signs of immediates are a matter of taste: only their value counts, at the width of the operand. */
  function immediateOf(insn: CapstoneInsn, wanted: Case): bigint {
    const word = insn.opStr.split(', ').at(-1) ?? '';
    const value = word.startsWith('-') ? -BigInt(word.slice(1)) : BigInt(word);
    return signedImmediate(value, wanted);
  }

  function agrees(insn: CapstoneInsn, wanted: Case): boolean {
    const theirs = `${insn.mnemonic} ${insn.opStr}`.trim();
    const last = wanted.operands.at(-1);
    if (last === undefined || last instanceof Reg || last instanceof Mem)
      return theirs === text(wanted, dialect);
    return (
      theirs.replace(/\S+$/, IMMEDIATE) === text(wanted, dialect) &&
      immediateOf(insn, wanted) === signedImmediate(last.imm, wanted)
    );
  }

  test.each(Object.entries(FORMS))('%s', (_, cases) => {
    const wrong: string[] = [];
    for (const wanted of sample(cases())) {
      if (isRipRelative(wanted)) continue;
      const bytes = assembled(wanted);
      const [insn] = capstone.disasm(bytes);
      if (insn?.size !== bytes.length || !agrees(insn, wanted)) {
        const theirs = insn === undefined ? 'nothing' : `${insn.mnemonic} ${insn.opStr}`;
        wrong.push(`${toHex(bytes)} ${text(wanted, dialect)}: capstone ${theirs}`);
      }
    }
    expect(wrong).toEqual([]);
  });
});
