/*
 * Every form of the assembler against decoders and an assembler that know nothing of ours.
 */

import { Code, Decoder, DecoderOptions, type Instruction, MemorySizeExt, OpKind, Register } from 'iced-x86';
import { describe, expect, test } from 'vitest';
import { Assembler, Mem, Reg } from '../../jit/index.ts';
import { addrAdd, kaddr, toHex } from '../../lib/index.ts';
import { type Case, type Expected, FORMS } from './forms.ts';

const ORIGIN = kaddr(0xffff_ffff_a020_1000n);

/** An assembler inside a step. */
function open(origin = ORIGIN): Assembler {
  const asm = new Assembler(origin, { record: false });
  asm.enter('test', undefined);
  return asm;
}

/** iced's name of a register: the byte registers r8b .. r15b are r8l .. r15l there. */
const icedName = ({ name, size, num }: Reg): string =>
  size === 1 && num >= 8 ? `R${num}L` : name.toUpperCase();
const registerName = (register: number): string => Register[register] ?? '';

/** In what the decoded instruction differs from what was asked for; undefined when in nothing. */
function difference(insn: Instruction, wanted: Case): string | undefined {
  const code = Code[insn.code];
  if (code !== wanted.code) return `is ${code}, not ${wanted.code}`;
  if (insn.hasLockPrefix !== (wanted.lock ?? false)) return 'lock prefix';
  const implicit = insn.code === Code.Retnq || insn.code === Code.Leaveq;
  if (!implicit && insn.opCount !== wanted.operands.length) return `${insn.opCount} operands`;
  for (const [i, operand] of wanted.operands.entries()) {
    const wrong = operandDifference(insn, i, operand, wanted);
    if (wrong !== undefined) return `operand ${i}: ${wrong}`;
  }
  return undefined;
}

function operandDifference(insn: Instruction, i: number, wanted: Expected, whole: Case): string | undefined {
  const kind = insn.opKind(i);
  if (wanted instanceof Reg) {
    if (kind !== OpKind.Register) return `kind ${OpKind[kind]}`;
    const name = registerName(insn.opRegister(i));
    return name === icedName(wanted) ? undefined : `${name}, not ${wanted.name}`;
  }
  if (wanted instanceof Mem) {
    return kind === OpKind.Memory ? memoryDifference(insn, wanted, whole) : `kind ${OpKind[kind]}`;
  }
  const [first] = whole.operands;
  const bits = first instanceof Reg || first instanceof Mem ? first.size * 8 : 64;
  const value = BigInt.asUintN(bits, insn.immediate(i));
  return value === wanted.imm ? undefined : `immediate ${value}, not ${wanted.imm}`;
}

function memoryDifference(insn: Instruction, wanted: Mem, whole: Case): string | undefined {
  const base = wanted.rip === undefined ? (wanted.base?.name.toUpperCase() ?? 'None') : 'RIP';
  if (registerName(insn.memoryBase) !== base) return `base ${registerName(insn.memoryBase)}`;
  const index = wanted.index?.name.toUpperCase() ?? 'None';
  if (registerName(insn.memoryIndex) !== index) return `index ${registerName(insn.memoryIndex)}`;
  if (wanted.index !== undefined && insn.memoryIndexScale !== wanted.scale)
    return `scale ${insn.memoryIndexScale}`;
  if (registerName(insn.segmentPrefix) !== (wanted.gs ? 'GS' : 'None')) return 'segment';
  // unlinked, a rip-relative operand points at the next instruction
  const disp = wanted.rip === undefined ? BigInt.asUintN(64, BigInt(wanted.disp)) : insn.nextIP;
  if (BigInt.asUintN(64, insn.memoryDisplacement) !== disp) return `displacement ${insn.memoryDisplacement}`;
  const bytes = displacementBytes(wanted);
  if (insn.memoryDisplSize !== bytes) return `a displacement field of ${insn.memoryDisplSize}, not ${bytes}`;
  const bits = /_rm(\d+)/.exec(whole.code)?.[1];
  if (bits === undefined) return undefined; // lea reads no memory
  const size = MemorySizeExt.size(insn.memorySize) * 8;
  return size === Number(bits) ? undefined : `${size} bits of memory, not ${bits}`;
}

/** iced calls a 32-bit displacement, extended to 64, one of 8 bytes. */
function displacementBytes({ base, disp, form, rip }: Mem): number {
  if (base === undefined || rip !== undefined || form === 'disp32') return 8;
  const mandatory = base.name === 'rbp' || base.name === 'r13';
  if (form === 'fit' && disp === 0 && !mandatory) return 0;
  return disp >= -128 && disp <= 127 ? 1 : 8;
}

/** Assembles cases one after the other and decodes them again; reports the first few differences. */
function mismatches(cases: Iterable<Case>): { readonly count: number; readonly wrong: readonly string[] } {
  const asm = open();
  const list: { readonly offset: number; readonly wanted: Case }[] = [];
  for (const wanted of cases) {
    list.push({ offset: asm.offset, wanted });
    wanted.emit(asm);
  }
  const bytes = asm.bytes();
  const wrong: string[] = [];
  const decoder = new Decoder(64, bytes, DecoderOptions.None);
  decoder.ip = ORIGIN;
  for (const [i, { offset, wanted }] of list.entries()) {
    const insn = decoder.decode();
    const end = list[i + 1]?.offset ?? bytes.length;
    const why = decoder.position === end ? difference(insn, wanted) : 'another length';
    insn.free();
    if (why !== undefined) {
      wrong.push(`${toHex(bytes.subarray(offset, end))} as ${wanted.code}: ${why}`);
      decoder.position = end;
      decoder.ip = addrAdd(ORIGIN, end);
    }
    if (wrong.length >= 10) break;
  }
  decoder.free();
  return { count: list.length, wrong };
}

describe('iced-x86 reads back what was asked for', () => {
  test.each(Object.entries(FORMS))('%s', (_, cases) => {
    expect(mismatches(cases()).wrong).toEqual([]);
  });

  test('no form is left out', () => {
    const branches = ['call', 'callSym', 'callLabel', 'jmp', 'jmpShort', 'jmpNear', 'jccShort', 'jccNear'];
    const distances = ['jmpShortBy', 'jmpNearBy', 'jccShortBy', 'jccNearBy'];
    const others = [
      'constructor',
      'offset',
      'bytesTo',
      'enter',
      'leave',
      'label',
      'bind',
      'site',
      'symbol',
      'reaches',
    ];
    const results = ['bytes', 'finish', 'pointer'];
    const all = Object.getOwnPropertyNames(Assembler.prototype);
    expect([...Object.keys(FORMS), ...branches, ...distances, ...others, ...results].sort()).toEqual(
      all.sort(),
    );
  });
});
