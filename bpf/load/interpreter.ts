/*
 * Programs that are not compiled: the image calls the interpreter with ctx and the program's instructions, and the
 * host interprets them over guest memory. The stack of the program lies below that of the call.
 *
 * Kernel: ___bpf_prog_run, kernel/bpf/core.c
 */

import type { Vcpu } from '../../emu/index.ts';
import type { BpfInsn } from '../../jit/index.ts';
import { addrAdd, Bug, type Kaddr, kaddr } from '../../lib/index.ts';
import type { HelperWorld } from '../helpers/helper.ts';
import { interpret } from '../interp/interpreter.ts';
import { MemoryFault } from '../interp/memory.ts';
import { answer, type HelperText } from './helper-text.ts';

/** A program as the interpreter takes it, by the address that stands for its instructions. */
export type InterpretedProgs = ReadonlyMap<bigint, readonly BpfInsn[]>;

/** Offset of insnsi in struct bpf_prog: a tail call knows the struct. */
export const INSNSI = 0x48;
/** Offset of ptrs in struct bpf_array is the revision's; of max_entries not. */
const MAX_ENTRIES = 0x24;
/** Instructions after which a program is given up. */
const LIMIT = 1_000_000;

export interface InterpreterWorld extends HelperWorld {
  readonly interpreted: InterpretedProgs;
  readonly helperText: HelperText;
  /** Offset of ptrs in struct bpf_array. */
  readonly arrayStart: number;
}

/** Answers the interpreter's int3. */
export function runInterpreter(world: InterpreterWorld, cpu: Vcpu, stub: Kaddr): void {
  const { regs } = cpu;
  const insns = world.interpreted.get(regs.get('rsi'));
  if (insns === undefined) throw new Bug(`no program has its instructions at ${regs.get('rsi')}`);
  const rsp = regs.get('rsp');
  answer(cpu, stub, () => {
    const frame = { rbp: regs.get('rbp'), returnTo: world.guest.read(rsp, 8) };
    const end = interpret(
      insns,
      {
        memory: world.guest,
        call: (distance, [r1 = 0n, r2 = 0n, r3 = 0n, r4 = 0n, r5 = 0n]) => {
          const id = world.helperText.numberAt(addrAdd(world.helperText.callBase, distance));
          const helper = world.helperText.helper(id ?? 0);
          if (helper === undefined) throw new Bug(`no helper is ${distance} from __bpf_call_base`);
          const result = helper.run({ world, cpu: cpu.id, args: [r1, r2, r3, r4, r5], frame });
          if (typeof result === 'object')
            throw new Bug(`${helper.name} calls back; such programs are refused`);
          return BigInt(result);
        },
        tailCall: (map, index) => tailCallee(world, map, index),
        percpuBase: world.kernel.machine.percpu.base(cpu.id),
      },
      { args: [regs.get('rdi')], stackTop: (rsp & ~15n) - 64n, limit: LIMIT },
    );
    if ('r0' in end) return end.r0;
    if (end.fault !== undefined) throw end.fault;
    throw new MemoryFault('read', 0n, 8);
  });
}

function tailCallee(
  { guest, interpreted, arrayStart }: InterpreterWorld,
  map: bigint,
  index: number,
): readonly BpfInsn[] | undefined {
  if (index >= Number(guest.read(map + BigInt(MAX_ENTRIES), 4))) return undefined;
  const prog = guest.read(map + BigInt(arrayStart + 8 * index), 8);
  return prog === 0n ? undefined : interpreted.get(kaddr(prog + BigInt(INSNSI)));
}
