import {
  BPF_ADD,
  BPF_ALU64,
  BPF_CALL,
  BPF_DW,
  BPF_EXIT,
  BPF_IMM,
  BPF_JMP,
  BPF_K,
  BPF_LD,
  BPF_LDX,
  BPF_MEM,
  BPF_MOV,
  BPF_PSEUDO_MAP_FD,
  BPF_PSEUDO_MAP_VALUE,
  BPF_ST,
  BPF_STX,
  BPF_W,
  BPF_X,
  type BpfInsn,
  BPF_REG_FP as FP,
  BPF_REG_0 as R0,
  BPF_REG_1 as R1,
  BPF_REG_2 as R2,
  BPF_REG_3 as R3,
  BPF_REG_6 as R6,
  BPF_REG_7 as R7,
} from '../jit/index.ts';
import type { ProgramSpec } from './combination.ts';
import type { ArgWord } from './target.ts';

/*
 * What every program of a combination does: it records what it sees in a block of memory that all
 * programs of the combination share, and returns what its description says.
 *
 *     0                           how many programs have run so far
 *     HEADER + slot * SLOT_BYTES  the program's own: ten words and more, see FIELD
 *
 * In a guest the block is the element of an array map, and the program is the eBPF code made here; in our
 * lab it is guest memory, and the program is machine code (recorder-text.ts).
 */

export const RECORD_HEADER = 64;
/** Argument words that a slot has room for. */
export const MAX_WORDS = 12;

/** Places in a program's slot, bytes. */
export const FIELD = { runs: 0, order: 8, funcIp: 16, cookie: 24, argCount: 32, ret: 40, args: 48 } as const;

export const SLOT_BYTES: number = FIELD.args + 8 * MAX_WORDS;

export function recordBytes(programs: number): number {
  return RECORD_HEADER + programs * SLOT_BYTES;
}

/** Where a program's slot starts. */
export function slotOffset(slot: number): number {
  return RECORD_HEADER + slot * SLOT_BYTES;
}

/** What there is to record. */
export interface Shape {
  /** Argument words in the context. */
  readonly words: readonly ArgWord[];
  /** The context has a return value behind them. */
  readonly hasRet: boolean;
}

/** Whether a program of a kind finds a return value in its context. */
export function seesRet(kind: ProgramSpec['kind'], retBits: number): boolean {
  return retBits > 0 && kind !== 'fentry' && kind !== 'freplace' && kind !== 'struct_ops';
}

/** What a program recorded of its latest run. */
export interface Recorded {
  /** How often it ran. */
  readonly runs: bigint;
  /** Its place among all runs so far, from 1. */
  readonly order: bigint;
  readonly funcIp: bigint;
  readonly cookie: bigint;
  readonly argCount: bigint;
  readonly ret: bigint;
  readonly args: readonly bigint[];
}

/** Reads a program's slot. */
export function readRecord(block: Uint8Array, slot: number, words: number): Recorded {
  const view = new DataView(block.buffer, block.byteOffset + slotOffset(slot), SLOT_BYTES);
  const word = (at: number): bigint => view.getBigUint64(at, true);
  return {
    runs: word(FIELD.runs),
    order: word(FIELD.order),
    funcIp: word(FIELD.funcIp),
    cookie: word(FIELD.cookie),
    argCount: word(FIELD.argCount),
    ret: word(FIELD.ret),
    args: Array.from({ length: words }, (_, i) => word(FIELD.args + 8 * i)),
  };
}

// Kernel: ___BPF_FUNC_MAPPER, include/uapi/linux/bpf.h
const HELPER = {
  map_delete_elem: 3,
  get_func_ip: 173,
  get_attach_cookie: 174,
  get_func_arg: 183,
  get_func_arg_cnt: 185,
} as const;

// Which of the script's maps a 64-bit load means: the script puts the file descriptor in.
const RECORD_MAP = 0;
const RECURSION_MAP = 1;

const insn = (code: number, dst: number, src: number, off: number, imm: number): BpfInsn => ({
  code,
  dst,
  src,
  off,
  imm,
});
const load = (dst: number, src: number, off: number): BpfInsn =>
  insn(BPF_LDX | BPF_MEM | BPF_DW, dst, src, off, 0);
const store = (dst: number, off: number, src: number): BpfInsn =>
  insn(BPF_STX | BPF_MEM | BPF_DW, dst, src, off, 0);
const move = (dst: number, src: number): BpfInsn => insn(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
const moveImm = (dst: number, imm: number): BpfInsn => insn(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm);
const addImm = (dst: number, imm: number): BpfInsn => insn(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, imm);
const call = (helper: number): BpfInsn => insn(BPF_JMP | BPF_CALL, 0, 0, 0, helper);
const mapLoad = (dst: number, pseudo: number, map: number): BpfInsn[] => [
  insn(BPF_LD | BPF_IMM | BPF_DW, dst, pseudo, 0, map),
  insn(0, 0, 0, 0, 0),
];

/** A program that does nothing but return. */
export function returning(value: number): BpfInsn[] {
  return [moveImm(R0, value), insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)];
}

/** The program as eBPF. */
export function recorderInsns(spec: ProgramSpec, slot: number, shape: Shape): BpfInsn[] {
  const own = slotOffset(slot);
  const keep = (field: number, src: number): BpfInsn => store(R7, own + field, src);
  const ask = (helper: number, field: number): BpfInsn[] => [move(R1, R6), call(helper), keep(field, R0)];
  // What freplace replaces takes its arguments in registers: its context is the first of them.
  const context = (word: number): BpfInsn[] =>
    spec.kind === 'freplace' ? [move(R1, R6)] : [load(R1, R6, 8 * word)];
  return [
    move(R6, R1),
    ...mapLoad(R7, BPF_PSEUDO_MAP_VALUE, RECORD_MAP),
    load(R1, R7, 0),
    addImm(R1, 1),
    store(R7, 0, R1),
    keep(FIELD.order, R1),
    load(R1, R7, own + FIELD.runs),
    addImm(R1, 1),
    keep(FIELD.runs, R1),
    ...shape.words.flatMap(({ askFor }, i) => [
      ...(askFor === true ? askForWord(i) : context(i)),
      keep(FIELD.args + 8 * i, R1),
    ]),
    ...(shape.hasRet ? [load(R1, R6, 8 * shape.words.length), keep(FIELD.ret, R1)] : []),
    ...(spec.funcIp === true ? ask(HELPER.get_func_ip, FIELD.funcIp) : []),
    ...(spec.cookie !== undefined ? ask(HELPER.get_attach_cookie, FIELD.cookie) : []),
    ...(spec.argCount === true ? ask(HELPER.get_func_arg_cnt, FIELD.argCount) : []),
    ...(spec.recurses === true ? recursion() : []),
    ...returning(spec.returns ?? 0),
  ];
}

/** bpf_get_func_arg, by way of the stack. */
function askForWord(word: number): BpfInsn[] {
  const value = -8;
  return [
    insn(BPF_ST | BPF_MEM | BPF_DW, FP, 0, value, 0),
    move(R1, R6),
    moveImm(R2, word),
    move(R3, FP),
    addImm(R3, value),
    call(HELPER.get_func_arg),
    load(R1, FP, value),
  ];
}

/** Deletes the first element of the second map, whose kind calls the traced function for it. */
function recursion(): BpfInsn[] {
  const key = -4;
  return [
    insn(BPF_ST | BPF_MEM | BPF_W, FP, 0, key, 0),
    ...mapLoad(R1, BPF_PSEUDO_MAP_FD, RECURSION_MAP),
    move(R2, FP),
    addImm(R2, key),
    call(HELPER.map_delete_elem),
  ];
}
