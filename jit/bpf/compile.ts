/*
 * The eBPF JIT: from a program of the verifier's to an image, byte for byte as the kernel's.
 *
 *   insn.ts         what a program is made of            program.ts     what goes in, what comes out
 *   registers.ts    where eBPF's registers live          context.ts     what emitters share; what a revision is
 *   rev/            what each revision compiles how      passes.ts      until the jumps have settled
 *
 *   function.ts     prologue, epilogue, exit             jump.ts        jumps
 *   alu.ts          arithmetic                           call.ts        calls
 *   mul-div.ts      multiplication, division             tail-call.ts   tail calls
 *   shift.ts        shifts by a register                 probe.ts       loads that may fault
 *   memory.ts       loads and stores                     extable.ts     what happens when they do
 *   atomic.ts       atomic operations                    arena.ts       memory shared with user space
 *
 *   poke.ts         direct tail calls, patched           disasm.ts      eBPF as text
 *   provenance.ts   which bytes come from where          listing.ts     both side by side
 *
 * Instructions are written with the assembler of the trampolines: its table of encodings is checked form by form
 * against decoders, and what the kernel chooses among them reads here as the name of a method.
 */

import { InputError } from '../../lib/index.ts';
import { OutOfRange } from '../x86/rm.ts';
import { type BpfJitRevision, JitRefusal } from './context.ts';
import { Compilation } from './passes.ts';
import type { BpfImage, BpfJitConfig, BpfProgram, RefusedProgram } from './program.ts';
import { Unverified } from './registers.ts';
import { type BpfJitRevisionName, bpfJitRevisions } from './rev/revisions.ts';

/**
 * Compiles one program or subprogram. Pure: poke slots are left as they are while the map's slot is empty.
 *
 * @param revision a kernel revision by name, or a JIT of one's own: a revision with parts replaced.
 * @param options.provenance also tell which bytes come from which instruction (slower; default false).
 * @throws InputError for what no verifier lets through: a jump out of the program, half an immediate, a register
 *   that does not exist.
 *
 * Kernel: bpf_int_jit_compile, arch/x86/net/bpf_jit_comp.c
 */
export function compileBpf(
  revision: BpfJitRevisionName | BpfJitRevision,
  program: BpfProgram,
  config: BpfJitConfig,
  options: { readonly provenance?: boolean } = {},
): BpfImage | RefusedProgram {
  const rev = typeof revision === 'string' ? bpfJitRevisions[revision] : revision;
  check(program);
  const compilation = new Compilation(rev, program, config, options.provenance ?? false);
  try {
    return compilation.run();
  } catch (error) {
    if (error instanceof JitRefusal || error instanceof OutOfRange) {
      return { fail: `${compilation.passes} ${error.message}` };
    }
    if (error instanceof Unverified) throw new InputError(...compilation.place, error.message);
    throw error;
  }
}

function check({ insns, final, stackDepth }: BpfProgram): void {
  if (final !== undefined && final.length !== insns.length) {
    throw new InputError('final', undefined, `${final.length} slots; the first run has ${insns.length}`);
  }
  if (!Number.isInteger(stackDepth) || stackDepth < 0 || stackDepth > MAX_STACK) {
    throw new InputError('stack depth', undefined, `${stackDepth}; wanted 0 to ${MAX_STACK}`);
  }
}

/** More than any verifier allows; far less than what displacements hold. */
const MAX_STACK = 0xffff;
