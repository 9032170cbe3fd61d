/*
 * Probe loads: through pointers that the verifier trusts to be kernel pointers, but which may be stale.
 * A guard tells addresses that must not be tried; what faults all the same is mended by the exception table:
 *
 *            guard          a jump to `load` when the address may be tried
 *   zero:    dst = 0
 *            jmp done
 *   load:    dst = [src + off]           <- may fault: dst = 0, go on at `done`
 *   done:
 */

import type { Label } from '../x86/assembler.ts';
import { r10 } from '../x86/operand.ts';
import { movZeroExtended } from './alu.ts';
import { type InsnEmitter, type JitPass, JitRefusal } from './context.ts';
import { clearedRegister, exFixup } from './extable.ts';
import type { BpfInsn } from './insn.ts';
import { AUX, home } from './registers.ts';

/** Compares the address and jumps to `load`; it may jump to `zero`, or run into it. */
export type Guard = (jit: JitPass, insn: BpfInsn, to: { readonly load: Label; readonly zero: Label }) => void;

/** @param skipsGuard the fixup counts the guard's bytes too, and so goes on too far behind (v5.15.0). */
export function probe(
  guard: Guard,
  load: InsnEmitter,
  { skipsGuard = false }: { readonly skipsGuard?: boolean } = {},
): InsnEmitter {
  return (jit, insn) => {
    const { asm } = jit;
    const to = { load: asm.label('load'), zero: asm.label('zero') };
    const done = asm.label('done');
    const start = asm.offset;
    guard(jit, insn, to);
    asm.bind(to.zero);
    movZeroExtended(asm, home(insn.dst), 0, 'not tried');
    asm.jmpShort(done);
    asm.bind(to.load);
    const loadAt = asm.offset;
    load(jit, insn);
    asm.bind(done);
    expectFault(jit, loadAt, asm.offset - (skipsGuard ? start : loadAt), clearedRegister(insn.dst));
  };
}

// -- guards -------------------------------------------------------------------------------------

/** Anything but NULL (v5.15.0). */
export const guardNull: Guard = ({ asm }, { src }, { load }) => {
  asm.test(home(src), home(src));
  asm.jccShort('ne', load);
};

/**
 * Above the user's addresses and a page more, as pointer and with the offset (v5.15, v6.1). A negative offset always
 * carries, as if the address had wrapped around: such loads are never tried. That is the kernel's mistake, not ours.
 */
export const guardUser: Guard = ({ asm, config }, { src, off }, { load, zero }) => {
  asm.movImm64(AUX, config.taskSizeMax + PAGE + BigInt(Math.abs(off)));
  asm.alu('cmp', home(src), AUX, 'the pointer');
  asm.jccShort('b', zero);
  asm.mov(AUX, home(src));
  asm.aluImm32('add', AUX, off, 'the address');
  asm.jccShort('ae', load, 'unless it wraps around');
};

/**
 * Neither in user space nor in the vsyscall page, which lies close to the end: both are below a limit when they are
 * counted from that page (v6.12).
 */
export const guardVsyscall: Guard = ({ asm, config }, { src, off }, { load }) => {
  asm.movImm(r10, VSYSCALL_PAGE, 'the vsyscall page');
  asm.mov(AUX, home(src));
  if (off !== 0) asm.aluImm32('add', AUX, off, 'the address');
  asm.alu('sub', AUX, r10);
  asm.movImm64(r10, config.taskSizeMax + PAGE - BigInt(VSYSCALL_PAGE));
  asm.alu('cmp', AUX, r10);
  asm.jccShort('a', load);
};

const PAGE = 4096n;
/** 0xffffffffff600000 */
const VSYSCALL_PAGE = -0xa0_0000;

// -- exception entries --------------------------------------------------------------------------

/**
 * Notes that the instruction at an offset may fault.
 *
 * @param skip bytes from the faulting instruction to where the program goes on.
 * @param becomes what is done to a register; undefined when the instruction has none that can be named.
 * @throws JitRefusal when writing, for more such instructions than announced, and for a register that cannot be
 *   cleared.
 */
export function expectFault(
  { writing, program, faults }: JitPass,
  insn: number,
  skip: number,
  becomes: number | undefined,
): void {
  if (!writing) return;
  if (faults.length >= program.numExentries)
    throw new JitRefusal('more probe accesses than exception entries');
  if (becomes === undefined) throw new JitRefusal('a probe load into a register that no fixup can clear');
  faults.push({ insn, fixup: exFixup(skip, becomes) });
}
