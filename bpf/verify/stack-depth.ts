/*
 * The stack of a program with all that it calls, along every path of calls, whether taken or not.
 *
 * Kernel: check_max_stack_depth, kernel/bpf/verifier.c
 */

import type { BpfInsn } from '../../jit/index.ts';
import type { BpfCode, BpfEnvironment } from './environment.ts';
import { isAddressOfFunction, isCallOfFunction, subprogFrom } from './program-map.ts';
import { refuse } from './refusal.ts';

/** Kernel: MAX_BPF_STACK */
export const MAX_STACK = 512;
/** ... of all callers of a function that makes tail calls. */
const MAX_BEFORE_TAIL_CALL = 256;
/** Kernel: MAX_CALL_FRAMES */
export const MAX_FRAMES = 8;

/**
 * @param stackDepth bytes of stack, by subprogram
 * @param hasTailCall by subprogram
 * @returns by subprogram: whether a tail call can happen in it or below it, as the verifier tells the JIT
 * @throws InputError for calls in a circle, and stacks that are too deep together
 */
export function checkStackDepth(
  code: BpfCode,
  { revision }: Pick<BpfEnvironment, 'revision'>,
  stackDepth: readonly number[],
  hasTailCall: readonly boolean[],
): boolean[] {
  // The interpreter has stacks of multiples of 32 bytes. v6.12 knows that it will compile.
  const grain = revision === 'v6.12' ? 16 : 32;
  const own = stackDepth.map((bytes) => Math.ceil(Math.max(bytes, 1) / grain) * grain);
  const order = callOrder(code);
  checkBelow(code, order, own);
  checkTailCallers(code, order, own, hasTailCall);
  return tailCallReachable(code, hasTailCall, revision === 'v6.12');
}

interface Call {
  readonly subprog: number;
  readonly at: number;
}

/** The functions that a function names, each once, by instruction. */
function callsOf(code: BpfCode, subprog: number): Call[] {
  const { start, length } = code.subprogs[subprog] as BpfCode['subprogs'][number];
  const found = new Map<number, Call>();
  for (let at = start; at < start + length; at++) {
    const insn = code.insns[at] as BpfInsn;
    if (!isCallOfFunction(insn) && !isAddressOfFunction(insn)) continue;
    const callee = subprogFrom(code, at + 1 + insn.imm);
    if (!found.has(callee)) found.set(callee, { subprog: callee, at });
  }
  return [...found.values()];
}

/** The functions that the program reaches, callers before those that they call. */
function callOrder(code: BpfCode): { readonly subprog: number; readonly calls: readonly Call[] }[] {
  const done: { subprog: number; calls: readonly Call[] }[] = [];
  const state = new Map<number, 'open' | 'done'>();
  const visit = (subprog: number, from: number): void => {
    if (state.get(subprog) === 'done') return;
    if (state.get(subprog) === 'open') refuse(code, from, 'functions call each other in a circle');
    state.set(subprog, 'open');
    const calls = callsOf(code, subprog);
    for (const call of calls) visit(call.subprog, call.at);
    state.set(subprog, 'done');
    done.push({ subprog, calls });
  };
  visit(0, 0);
  return done.reverse();
}

type CallOrder = ReturnType<typeof callOrder>;

function checkBelow(code: BpfCode, order: CallOrder, own: readonly number[]): void {
  const below = new Map<number, { bytes: number; frames: number }>();
  for (const { subprog, calls } of order.toReversed()) {
    let bytes = 0;
    let frames = 0;
    const mine = own[subprog] as number;
    for (const { subprog: callee, at } of calls) {
      const under = below.get(callee) ?? { bytes: 0, frames: 0 };
      bytes = Math.max(bytes, under.bytes);
      frames = Math.max(frames, under.frames);
      if (frames + 1 > MAX_FRAMES) refuse(code, at, `more than ${MAX_FRAMES} functions call each other`);
      if (bytes + mine > MAX_STACK) {
        refuse(code, at, `${bytes + mine} bytes of stack from here down; ${MAX_STACK} are allowed`);
      }
    }
    below.set(subprog, { bytes: bytes + mine, frames: frames + 1 });
  }
}

function checkTailCallers(
  code: BpfCode,
  order: CallOrder,
  own: readonly number[],
  hasTailCall: readonly boolean[],
): void {
  const above = new Map<number, number>();
  for (const { subprog, calls } of order) {
    const bytes = (above.get(subprog) ?? 0) + (own[subprog] as number);
    for (const { subprog: callee, at } of calls) {
      above.set(callee, Math.max(above.get(callee) ?? 0, bytes));
      if (hasTailCall[callee] !== true || bytes < MAX_BEFORE_TAIL_CALL) continue;
      const name = code.subprogs[callee]?.name ?? '';
      const limit = `less than ${MAX_BEFORE_TAIL_CALL} are allowed`;
      refuse(code, at, `${name} makes tail calls, and its callers have ${bytes} bytes of stack; ${limit}`);
    }
  }
}

/**
 * Marks the callers of what makes tail calls; also, since the kernel's walk does not forget that it has met one,
 * those who call anything afterwards. v6.12 marks the function itself, before that the JIT looks for itself.
 */
function tailCallReachable(code: BpfCode, hasTailCall: readonly boolean[], marksItself: boolean): boolean[] {
  const reachable = hasTailCall.map((has) => has && marksItself);
  const walked = new Set<number>();
  const chain: number[] = [];
  let met = false;
  const walk = (subprog: number): void => {
    chain.push(subprog);
    for (const { subprog: callee } of callsOf(code, subprog)) {
      met ||= hasTailCall[callee] === true;
      if (!walked.has(callee)) walk(callee);
      if (met) for (const caller of chain) reachable[caller] = true;
    }
    chain.pop();
    walked.add(subprog);
  };
  walk(0);
  return reachable;
}
