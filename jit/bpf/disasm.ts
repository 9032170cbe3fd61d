/*
 * eBPF as text, in the verifier's style: `(07) r1 += 4`, `(61) r0 = *(u32 *)(r1 +16)`, `(15) if r0 == 0x0 goto pc+3`.
 *
 * Kernel: print_bpf_insn, kernel/bpf/disasm.c. Two things are our own: what the verifier has made of a load is named
 * behind it (`; probe`), and tail calls have a name.
 */

import * as op from './insn.ts';
import { type BpfInsn, bpfClass, bpfMode, bpfOp, bpfSize, bpfSrc } from './insn.ts';

export interface DisasmOptions {
  /** Names what is called, undefined for what it does not know. */
  readonly callee?: (insn: BpfInsn) => string | undefined;
}

/**
 * The text of one instruction.
 *
 * @param next the slot behind it, which holds the other half of a 64-bit immediate.
 */
export function disasmInsn(insn: BpfInsn, next?: BpfInsn, options: DisasmOptions = {}): string {
  const { code } = insn;
  return `(${hexByte(code)}) ${BY_CLASS[bpfClass(code)]?.(insn, next, options) ?? `BUG_${hexByte(code)}`}`;
}

type Text = (insn: BpfInsn, next: BpfInsn | undefined, options: DisasmOptions) => string | undefined;

const hexByte = (value: number): string => value.toString(16).padStart(2, '0');
const signed = (value: number): string => (value < 0 ? String(value) : `+${value}`);
const hex32 = (value: number): string => `0x${(value >>> 0).toString(16)}`;

// -- arithmetic ---------------------------------------------------------------------------------

const OPERATORS: Readonly<Record<number, string>> = {
  [op.BPF_ADD]: '+=',
  [op.BPF_SUB]: '-=',
  [op.BPF_MUL]: '*=',
  [op.BPF_DIV]: '/=',
  [op.BPF_OR]: '|=',
  [op.BPF_AND]: '&=',
  [op.BPF_LSH]: '<<=',
  [op.BPF_RSH]: '>>=',
  [op.BPF_MOD]: '%=',
  [op.BPF_XOR]: '^=',
  [op.BPF_MOV]: '=',
  [op.BPF_ARSH]: 's>>=',
};

const arithmetic: Text = (insn) => {
  const { code, dst, src, off, imm } = insn;
  const wide = bpfClass(code) === op.BPF_ALU64;
  const letter = wide ? 'r' : 'w';
  const fromReg = bpfSrc(code) === op.BPF_X;
  if (bpfOp(code) === op.BPF_END) {
    const order = wide ? 'bswap' : fromReg ? 'be' : 'le';
    return `r${dst} = ${order}${imm} r${dst}`;
  }
  if (bpfOp(code) === op.BPF_NEG) return `${letter}${dst} = -${letter}${dst}`;
  if (bpfOp(code) === op.BPF_MOV && fromReg && wide) {
    if (off === op.BPF_ADDR_SPACE_CAST) {
      return `r${dst} = addr_space_cast(r${src}, ${imm >>> 16}, ${imm & 0xffff})`;
    }
    if (off === op.BPF_ADDR_PERCPU) return `r${dst} = &(void __percpu *)(r${src})`;
  }
  const operator = OPERATORS[bpfOp(code)];
  if (operator === undefined) return undefined;
  const divides = bpfOp(code) === op.BPF_DIV || bpfOp(code) === op.BPF_MOD;
  const extends_ = bpfOp(code) === op.BPF_MOV && fromReg && (off === 8 || off === 16 || off === 32);
  const sign = divides && off !== 0 ? 's' : '';
  const operand = fromReg ? `${extends_ ? `(s${off})` : ''}${letter}${src}` : String(imm);
  return `${letter}${dst} ${sign}${operator} ${operand}`;
};

// -- memory -------------------------------------------------------------------------------------

const SIZES: Readonly<Record<number, string>> = {
  [op.BPF_B]: '8',
  [op.BPF_H]: '16',
  [op.BPF_W]: '32',
  [op.BPF_DW]: '64',
};

const type = (code: number, sign: 'u' | 's' = 'u'): string => `${sign}${SIZES[bpfSize(code)]}`;
const place = (code: number, base: number, off: number, sign?: 's'): string =>
  `*(${type(code, sign)} *)(r${base} ${signed(off)})`;

const loadConstant: Text = ({ code, dst, src, imm }, next) => {
  if (bpfMode(code) === op.BPF_ABS) return `r0 = *(${type(code)} *)skb[${imm}]`;
  if (bpfMode(code) === op.BPF_IND) return `r0 = *(${type(code)} *)skb[r${src} + ${imm}]`;
  if (code !== (op.BPF_LD | op.BPF_IMM | op.BPF_DW)) return undefined;
  const value = (BigInt((next?.imm ?? 0) >>> 0) << 32n) | BigInt(imm >>> 0);
  return `r${dst} = 0x${value.toString(16)}`;
};

/** The signs of loads by mode, and what the mode is called where it is the verifier's own. */
const LOADS: Readonly<Record<number, readonly [sign: 's' | undefined, remark: string]>> = {
  [op.BPF_MEM]: [undefined, ''],
  [op.BPF_MEMSX]: ['s', ''],
  [op.BPF_PROBE_MEM]: [undefined, ' ; probe'],
  [op.BPF_PROBE_MEMSX]: ['s', ' ; probe'],
  [op.BPF_PROBE_MEM32]: [undefined, ' ; arena'],
};

const loadMemory: Text = ({ code, dst, src, off }) => {
  const mode = LOADS[bpfMode(code)];
  return mode === undefined ? undefined : `r${dst} = ${place(code, src, off, mode[0])}${mode[1]}`;
};

const storeConstant: Text = ({ code, dst, off, imm }) => {
  if (code === (op.BPF_ST | op.BPF_NOSPEC)) return 'nospec';
  const remark = STORES[bpfMode(code)];
  return remark === undefined ? undefined : `${place(code, dst, off)} = ${imm}${remark}`;
};

const STORES: Readonly<Record<number, string>> = { [op.BPF_MEM]: '', [op.BPF_PROBE_MEM32]: ' ; arena' };
const ATOMICS: Readonly<Record<number, string>> = { [op.BPF_ATOMIC]: '', [op.BPF_PROBE_ATOMIC]: ' ; arena' };

const storeRegister: Text = (insn) => {
  const { code, dst, src, off } = insn;
  const locked = ATOMICS[bpfMode(code)];
  if (locked !== undefined) return atomicText(insn, locked);
  const remark = STORES[bpfMode(code)];
  return remark === undefined ? undefined : `${place(code, dst, off)} = r${src}${remark}`;
};

const FETCHES: Readonly<Record<number, string>> = {
  [op.BPF_ADD]: 'add',
  [op.BPF_AND]: 'and',
  [op.BPF_OR]: 'or',
  [op.BPF_XOR]: 'xor',
};

function atomicText({ code, dst, src, off, imm }: BpfInsn, remark: string): string | undefined {
  const name = `atomic${bpfSize(code) === op.BPF_DW ? '64' : ''}`;
  const pointer = `(${type(code)} *)(r${dst} ${signed(off)})`;
  if (imm === op.BPF_CMPXCHG) return `r0 = ${name}_cmpxchg(${pointer}, r0, r${src})${remark}`;
  if (imm === op.BPF_XCHG) return `r${src} = ${name}_xchg(${pointer}, r${src})${remark}`;
  const fetch = FETCHES[imm & ~op.BPF_FETCH];
  if (fetch === undefined) return undefined;
  if ((imm & op.BPF_FETCH) !== 0) return `r${src} = ${name}_fetch_${fetch}(${pointer}, r${src})${remark}`;
  return `lock *${pointer} ${OPERATORS[imm]} r${src}${remark}`;
}

// -- jumps --------------------------------------------------------------------------------------

const COMPARISONS: Readonly<Record<number, string>> = {
  [op.BPF_JEQ]: '==',
  [op.BPF_JGT]: '>',
  [op.BPF_JLT]: '<',
  [op.BPF_JGE]: '>=',
  [op.BPF_JLE]: '<=',
  [op.BPF_JSET]: '&',
  [op.BPF_JNE]: '!=',
  [op.BPF_JSGT]: 's>',
  [op.BPF_JSLT]: 's<',
  [op.BPF_JSGE]: 's>=',
  [op.BPF_JSLE]: 's<=',
};

const jump: Text = (insn, _next, { callee }) => {
  const { code, dst, src, off, imm } = insn;
  switch (code) {
    case op.BPF_JMP | op.BPF_CALL: {
      const name = callee?.(insn);
      if (name !== undefined) return `call ${name}`;
      return src === op.BPF_PSEUDO_CALL ? `call pc${signed(imm)}` : `call unknown#${imm}`;
    }
    case op.BPF_JMP | op.BPF_TAIL_CALL:
      return imm === 0 ? 'tail_call' : `tail_call poke#${imm}`;
    case op.BPF_JMP | op.BPF_EXIT:
      return 'exit';
    case op.BPF_JMP | op.BPF_JA:
      return `goto pc${signed(off)}`;
    case op.BPF_JMP32 | op.BPF_JA:
      return `gotol pc${signed(imm)}`;
  }
  const comparison = COMPARISONS[bpfOp(code)];
  if (comparison === undefined) return undefined;
  const letter = bpfClass(code) === op.BPF_JMP32 ? 'w' : 'r';
  const operand = bpfSrc(code) === op.BPF_X ? `${letter}${src}` : hex32(imm);
  return `if ${letter}${dst} ${comparison} ${operand} goto pc${signed(off)}`;
};

const BY_CLASS: Readonly<Record<number, Text>> = {
  [op.BPF_LD]: loadConstant,
  [op.BPF_LDX]: loadMemory,
  [op.BPF_ST]: storeConstant,
  [op.BPF_STX]: storeRegister,
  [op.BPF_ALU]: arithmetic,
  [op.BPF_JMP]: jump,
  [op.BPF_JMP32]: jump,
  [op.BPF_ALU64]: arithmetic,
};
