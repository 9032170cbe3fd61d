/*
 * How a C caller passes arguments, System V: an argument of one or two words goes into the registers that are
 * left, or whole onto the stack when it does not fit; a smaller one behind it may still have a register.
 */

import type { Vcpu } from '../emu/index.ts';
import { addrAdd, type Kaddr } from '../lib/index.ts';
import type { ArgModel } from '../obj/index.ts';

const WORD_BYTES = 8;
const NR_REGS = 6;

/** Words that an argument takes. */
export function wordsOf({ sizeBytes }: Pick<ArgModel, 'sizeBytes'>): number {
  return Math.ceil(sizeBytes / WORD_BYTES);
}

/** Words where a caller puts them: in registers, and on the stack from its top on. */
export interface Passed {
  readonly regs: readonly bigint[];
  readonly stack: readonly bigint[];
}

/** @param values one for each argument, its first byte lowest */
export function pass(args: readonly Pick<ArgModel, 'sizeBytes'>[], values: readonly bigint[]): Passed {
  const regs: bigint[] = [];
  const stack: bigint[] = [];
  for (const [i, value] of values.entries()) {
    const count = wordsOf(args[i] ?? { sizeBytes: WORD_BYTES });
    const to = regs.length + count <= NR_REGS ? regs : stack;
    for (let word = 0; word < count; word++) to.push(BigInt.asUintN(64, value >> BigInt(64 * word)));
  }
  return { regs, stack };
}

/** The values of arguments from their words, in the order of the arguments. */
export function gather(
  args: readonly Pick<ArgModel, 'sizeBytes'>[],
  word: (index: number) => bigint,
): bigint[] {
  let next = 0;
  return args.map((arg) => {
    let value = 0n;
    for (let at = 0; at < wordsOf(arg); at++) value |= word(next++) << BigInt(64 * at);
    return BigInt.asUintN(8 * arg.sizeBytes, value);
  });
}

/**
 * The words of arguments where a called function finds them, in the order of the arguments.
 * @param reg the word in a register, by its number
 * @param stack the word so many words above the return address
 */
export function arriving(
  args: readonly Pick<ArgModel, 'sizeBytes'>[],
  reg: (index: number) => bigint,
  stack: (index: number) => bigint,
): bigint[] {
  let [regs, onStack] = [0, 0];
  return args.flatMap((arg) => {
    const count = wordsOf(arg);
    const fits = regs + count <= NR_REGS;
    return Array.from({ length: count }, () => (fits ? reg(regs++) : stack(onStack++)));
  });
}

/** Writes the words that go on the stack of a CPU. @returns where the stack of the call begins */
export function pushWords(
  cpu: Vcpu,
  memory: { readonly writeU64: (address: Kaddr, value: bigint) => void },
  stack: readonly bigint[],
): Kaddr {
  // rsp is on 16 bytes at the call
  const top = addrAdd(cpu.stack.top, -16 * Math.ceil(stack.length / 2));
  for (const [i, word] of stack.entries()) memory.writeU64(addrAdd(top, WORD_BYTES * i), word);
  return top;
}
