import { type ImageCase, STACK_ARG_WORDS } from './case.ts';

/** The 64-bit values of a case as numbers: read from their text once. */
export interface Values {
  /** Six argument registers, and those of a program's own call: the same, moved on by one. */
  readonly args: BigUint64Array;
  readonly inner: BigUint64Array;
  /** Words above the return address, and those of a program's own call, likewise. */
  readonly stack: BigUint64Array;
  readonly innerStack: BigUint64Array;
  /** rbx, rbp, r12 to r15. */
  readonly saved: BigUint64Array;
  readonly rax: bigint;
  readonly garbage: bigint;
  readonly clock: bigint;
  readonly original: bigint;
  readonly body: bigint;
}

const REGISTERS = 6;

export function valuesOf({ registers, returns, clock }: ImageCase): Values {
  const args = new BigUint64Array(REGISTERS);
  const inner = new BigUint64Array(REGISTERS);
  const saved = new BigUint64Array(REGISTERS);
  for (let i = 0; i < REGISTERS; i++) {
    args[i] = BigInt(registers.args[i] as string);
    saved[i] = BigInt(registers.saved[i] as string);
  }
  const stack = new BigUint64Array(STACK_ARG_WORDS);
  for (let i = 0; i < STACK_ARG_WORDS; i++) stack[i] = BigInt(registers.stack[i] as string);
  const innerStack = new BigUint64Array(STACK_ARG_WORDS);
  innerStack.set(stack.subarray(1));
  innerStack[STACK_ARG_WORDS - 1] = stack[0] as bigint;
  inner.set(args.subarray(1));
  inner[REGISTERS - 1] = args[0] as bigint;
  return {
    args,
    inner,
    stack,
    innerStack,
    saved,
    rax: BigInt(registers.rax),
    garbage: BigInt(registers.garbage),
    clock: BigInt(clock),
    original: BigInt(returns.original),
    body: BigInt(returns.body),
  };
}
