import type { Assembler } from '../x86/assembler.ts';
import { gsAt, rdx } from '../x86/operand.ts';
import { piece } from '../x86/step.ts';
import type { RuntimeBug } from './bugs.ts';

/** Offsets of per-CPU variables, as used behind gs. */
export interface RuntimeLayout {
  /** Pointer to the running task. */
  readonly currentTask: number;
  /** u32: preemption is off while not 0. */
  readonly preemptCount: number;
  /** u32: how often might_fault() found that faulting was not allowed. */
  readonly mightFaultSplats: number;
}

/** What every function of the runtime is emitted with. */
export interface Ctx {
  readonly asm: Assembler;
  readonly layout: RuntimeLayout;
  readonly bugs: ReadonlySet<RuntimeBug>;
}

/** A function of the runtime, to be emitted. */
export type Func = (ctx: Ctx) => void;

/** A function on a 16-byte boundary, int3 between functions, named in the symbol table. */
export function func(name: string, body: (ctx: Ctx) => void): Func {
  const pad = piece('align', ({ asm }: Ctx) => {
    while (asm.offset % 16 !== 0) asm.int3();
  });
  const emit = piece(name, body);
  return (ctx) => {
    pad(ctx);
    const start = ctx.asm.offset;
    emit(ctx);
    ctx.asm.symbol(name, start);
  };
}

/** rdx = the running task. */
export function current({ asm, layout }: Ctx): void {
  asm.mov(rdx, gsAt(layout.currentTask), 'current');
}
