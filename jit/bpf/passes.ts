/*
 * Until the jumps have settled.
 *
 * Every jump starts as if its target were far away. A pass compiles the whole program with the ends of instructions
 * as the table has them, and overwrites them as it goes: backward, a jump sees where this pass has put its target,
 * forward where the pass before did. Shorter jumps bring others closer, and so on.
 *
 *   pass 1 .. 20    only lengths; from 16 on, padding stops jumps that still shrink
 *   as long as before: one more pass writes the image, and must find every end where it is
 *   a program split in functions: once all are placed, an extra pass writes it with their real addresses
 */

import { kaddr } from '../../lib/index.ts';
import { Assembler } from '../x86/assembler.ts';
import { piece } from '../x86/step.ts';
import { type BpfJitRevision, type ExpectedFault, type JitPass, JitRefusal } from './context.ts';
import { exFieldAddress } from './extable.ts';
import { prologue } from './function.ts';
import { type BpfInsn, isLdImm64 } from './insn.ts';
import type { BpfImage, BpfJitConfig, BpfProgram, ExEntry } from './program.ts';
import { byteRanges } from './provenance.ts';

/** Kernel: MAX_PASSES */
const MAX_PASSES = 20;

/** Passes without padding. Kernel: PADDING_PASSES */
const PADDING_PASSES = 15;

/** What an instruction is taken to be long, at first. */
const FIRST_GUESS = 64;

/** While there is no image, addresses are relative to 0. */
const NO_IMAGE = kaddr(0);

/** Where lengths are found there is nothing to be kept. */
const scratch = new Uint8Array(1 << 16);

/** How a pass differs from another. */
interface PassOptions {
  readonly writing: boolean;
  readonly padding: boolean;
  /** Keep steps and notes. */
  readonly record: boolean;
}

/** One program on its way through the passes. */
export class Compilation {
  /** Passes of the first run that were begun. */
  passes = 0;

  readonly #rev: BpfJitRevision;
  readonly #program: BpfProgram;
  readonly #config: BpfJitConfig;
  readonly #provenance: boolean;

  // What one pass leaves to the next.
  readonly #addrs: Int32Array;
  #length = 0;
  /** The latest pass. */
  #jit: JitPass | undefined;

  constructor(rev: BpfJitRevision, program: BpfProgram, config: BpfJitConfig, provenance: boolean) {
    this.#rev = rev;
    this.#program = program;
    this.#config = config;
    this.#provenance = provenance;
    this.#addrs = Int32Array.from({ length: program.insns.length + 1 }, (_, k) => FIRST_GUESS * (k + 1));
  }

  /** The instruction that was reached, for messages: the program's field and the slot. */
  get place(): [field: string, slot: string] {
    const { at, insns } = this.#jit as JitPass;
    return [insns === this.#program.insns ? 'insns' : 'final', `slot ${at - 1}`];
  }

  /** @throws JitRefusal or OutOfRange when the kernel's JIT gives up, Unverified for what it cannot be asked. */
  run(): BpfImage {
    const { insns, final } = this.#program;
    this.#settle();
    this.passes++;
    const padding = this.passes > PADDING_PASSES;
    const last = final === undefined;
    const jit = this.#write(insns, { writing: true, padding, record: last && this.#provenance });
    if (last) return this.#result(jit);
    return this.#result(this.#write(final, { writing: true, padding: true, record: this.#provenance }));
  }

  /** Passes for length alone, until one is as long as that before. */
  #settle(): void {
    while (this.passes < MAX_PASSES) {
      this.passes++;
      const padding = this.passes > PADDING_PASSES;
      const { asm } = this.#pass(this.#program.insns, { writing: false, padding, record: false });
      const settled = asm.offset === this.#length;
      this.#length = asm.offset;
      if (settled) return;
    }
    throw new JitRefusal('lengths have not settled');
  }

  /** The image, of a length that is known. */
  #write(insns: readonly BpfInsn[], options: PassOptions): JitPass {
    const jit = this.#pass(insns, options);
    if (jit.asm.offset !== this.#length) throw new JitRefusal(`${jit.asm.offset} bytes, not ${this.#length}`);
    const { numExentries } = this.#program;
    if (jit.faults.length !== numExentries) {
      throw new JitRefusal(`${jit.faults.length} probe accesses; ${numExentries} exception entries`);
    }
    return jit;
  }

  /** Kernel: do_jit */
  #pass(insns: readonly BpfInsn[], { writing, padding, record }: PassOptions): JitPass {
    const origin = writing ? this.#program.image : NO_IMAGE;
    const jit: JitPass = {
      asm: new Assembler(origin, { record, buffer: scratch }),
      rev: this.#rev,
      program: this.#program,
      config: this.#config,
      insns,
      frame: this.#rev.frame(this.#program, insns),
      addrs: this.#addrs,
      writing,
      padding,
      at: 0,
      cleanupAddr: undefined,
      faults: [],
      pokes: new Map(),
    };
    this.#jit = jit;
    walk(jit);
    return jit;
  }

  #result(jit: JitPass): BpfImage {
    const { asm, faults, insns, pokes } = jit;
    const code = this.#provenance ? asm.finish() : undefined;
    const addrs = Array.from(this.#addrs);
    return {
      bytes: code?.bytes ?? asm.bytes(),
      addrs,
      passes: this.passes,
      exTable: faults.map((fault, i) => this.#exEntry(fault, i)),
      pokes: [...pokes.values()].sort((a, b) => a.entry - b.entry),
      provenance: code === undefined ? undefined : { code, ranges: byteRanges(insns, addrs) },
    };
  }

  #exEntry({ insn, fixup }: ExpectedFault, entry: number): ExEntry {
    const field = exFieldAddress(this.#program.image, this.#length, entry, 2);
    return { insn, fixup, handler: this.#rev.exHandler(this.#config, field) };
  }
}

/** From the prologue to the last instruction, noting every end. */
const walk = piece('do_jit', (jit: JitPass) => {
  const { asm, rev, insns, addrs, writing } = jit;
  prologue(jit);
  addrs[0] = asm.offset;
  for (let i = 0; i < insns.length; i++) {
    const insn = insns[i] as BpfInsn;
    jit.at = i + 1;
    const emit = rev.opcodes[insn.code];
    if (emit === undefined) throw new JitRefusal(`unknown opcode ${insn.code.toString(16).padStart(2, '0')}`);
    emit(jit, insn);
    // the first slot of an immediate never gets an end of its own
    if (isLdImm64(insn)) i++;
    if (writing && addrs[i + 1] !== asm.offset) throw new JitRefusal(`slot ${i} ends elsewhere than before`);
    addrs[i + 1] = asm.offset;
  }
});
