/*
 * From an object's program to what the JIT takes: checked, then rewritten.
 *
 *   symbols.ts         addresses of the kernel's symbols
 *   ../verify/         what the program does on each path, or why it is refused
 *   dead-code.ts       what no path leads to is taken out
 *   rewrite.ts         each instruction as the JIT wants it:
 *     div-mod.ts         divisions that cannot fault
 *     inline-helpers.ts  helpers in the place of their calls
 *     zero-extension.ts  the one instruction whose result the CPU does not extend
 *   images.ts          compiled, and placed
 *
 * Kernel: bpf_check, kernel/bpf/verifier.c
 */

import { Bug } from '../../lib/index.ts';
import type { BpfCode, BpfEnvironment } from '../verify/environment.ts';
import { Exploration, type Facts } from '../verify/explore.ts';
import { Helper } from '../verify/helpers.ts';
import { checkShape } from '../verify/program-map.ts';
import { checkStackDepth } from '../verify/stack-depth.ts';
import type { CheckedFunction, CheckedProgram } from './checked.ts';
import { withoutDeadCode } from './dead-code.ts';
import { joined, linesOf } from './lines.ts';
import { Rewriting } from './rewrite.ts';
import { withSymbols } from './symbols.ts';

/**
 * Checks a program and makes it ready for the JIT and the interpreter. Pure: nothing is placed or written.
 *
 * @param code from `readBpfObject`, with CO-RE applied
 * @throws InputError naming program, instruction and reason when it is refused
 */
export function checkProgram(code: BpfCode, env: BpfEnvironment): CheckedProgram {
  checkShape(code, env);
  const resolved = withSymbols(code, env);
  const facts = new Exploration(resolved, env).run();
  const hasTailCall = code.subprogs.map(({ start, length }) =>
    code.insns.slice(start, start + length).some(({ code: opcode, src, imm }) => {
      return opcode === CALL && src === 0 && imm === Helper.TAIL_CALL;
    }),
  );
  const tailCallReachable = checkStackDepth(resolved, env, facts.stackDepth, hasTailCall);
  return rewritten(resolved, env, facts, tailCallReachable);
}

const CALL = 0x85;

function rewritten(
  code: BpfCode,
  env: BpfEnvironment,
  facts: Facts,
  tailCallReachable: readonly boolean[],
): CheckedProgram {
  // A function that only dead code calls is dead itself.
  const live = code.subprogs.flatMap(({ start }, subprog) => (facts.seen[start] === 1 ? [subprog] : []));
  const rewriting = new Rewriting(code, env, facts, live);
  const functions = live.map((subprog): CheckedFunction => {
    const one = code.subprogs[subprog];
    if (one === undefined) throw new Bug(`there is no function ${subprog}`);
    const lines = withoutDeadCode(linesOf(code.insns, one.start, one.length), facts.seen);
    for (const line of lines) rewriting.rewrite(line);
    return {
      name: one.name,
      subprog,
      ...joined(lines),
      stackDepth: facts.stackDepth[subprog] ?? 0,
      tailCallReachable: tailCallReachable[subprog] ?? false,
      numExentries: lines.filter(({ origin }) => facts.loads.get(origin) === 'probe').length,
    };
  });
  return {
    name: code.name,
    functions,
    pokes: rewriting.pokes,
    callsGetFuncIp: rewriting.callsGetFuncIp,
    maps: [...facts.maps].sort((a, b) => a - b),
    globals: [...facts.globals].sort((a, b) => a - b),
    processedInsns: facts.processedInsns,
  };
}
