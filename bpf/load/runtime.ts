/*
 * What BPF programs stand on, one for each kernel: helpers as text, the maps that there are, what a load that may
 * fault gives, the trace log.
 */

import type { RegisterName, Vcpu } from '../../emu/index.ts';
import { type BpfInsn, type ExFixup, exFixups } from '../../jit/index.ts';
import { addrAdd, type Kaddr } from '../../lib/index.ts';
import type { BpfProg, Kernel } from '../../tramp/index.ts';
import type { PlacedFunction } from '../fixup/images.ts';
import { GuestMemoryView } from '../helpers/guest.ts';
import { arrayStart, type BpfMap, type MapHome } from '../maps/map.ts';
import { HelperText } from './helper-text.ts';
import { INSNSI, type InterpreterWorld, runInterpreter } from './interpreter.ts';

/** Of the numbers that bpf_get_prandom_u32 gives. */
const SEED = 0x9e37_79b9;

export class BpfRuntime implements InterpreterWorld {
  readonly kernel: Kernel;
  readonly guest: GuestMemoryView;
  readonly helperText: HelperText;
  readonly maps: Map<bigint, BpfMap> = new Map();
  readonly interpreted: Map<bigint, readonly BpfInsn[]> = new Map();
  readonly arrayStart: number;
  /** Lines of the trace log that nobody has taken yet. */
  readonly log: string[] = [];
  /** What maps stand on. */
  readonly mapHome: MapHome;
  /** Where images of programs that are not compiled go. Kernel: ___bpf_prog_run */
  readonly interpreter: Kaddr;
  /** What loads of compiled functions give when they cannot be done, by the function's start. */
  readonly #fixups = new Map<Kaddr, ReadonlyMap<number, ExFixup>>();
  #random = SEED;

  /** Puts the helpers into the kernel's text, and itself before the machine's handlers. */
  constructor(kernel: Kernel) {
    const { machine, grace, revision } = kernel;
    this.kernel = kernel;
    this.guest = new GuestMemoryView(machine);
    this.arrayStart = arrayStart(revision);
    this.mapHome = { machine, revision, callRcu: (work) => grace.callRcu(work) };
    this.helperText = new HelperText(this, {
      ___bpf_prog_run: (cpu, stub) => runInterpreter(this, cpu, stub),
      ex_handler_bpf: () => undefined,
    });
    this.interpreter = kernel.kallsyms.named('___bpf_prog_run')?.start as Kaddr;
    const before = machine.breakpoint;
    machine.breakpoint = (cpu, address) =>
      this.helperText.handle(cpu, address) || before?.(cpu, address) === true;
    machine.loadFault = (cpu, address) => this.#fixUp(cpu, address);
  }

  print(text: string): void {
    // The log ends every line by itself.
    this.log.push(...text.replace(/\n$/, '').split('\n'));
  }

  /** xorshift32 */
  random(): number {
    let x = this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#random = x >>> 0;
    return this.#random;
  }

  /** Where the exception table of v5.15 points. Kernel: ex_handler_bpf */
  get exHandler(): Kaddr {
    return this.kernel.kallsyms.named('ex_handler_bpf')?.start as Kaddr;
  }

  /** Notes the exception table of a compiled function. Kernel: search_bpf_extables */
  addImage({ image, compiled }: PlacedFunction): void {
    if (compiled.exTable.length > 0) this.#fixups.set(image, exFixups(compiled.exTable));
  }

  removeImage({ image }: PlacedFunction): void {
    this.#fixups.delete(image);
  }

  /** Notes the instructions of a program that is not compiled. */
  addInterpreted(prog: BpfProg, insns: readonly BpfInsn[]): () => void {
    const insnsi = addrAdd(prog.address, INSNSI);
    this.interpreted.set(insnsi, insns);
    return () => this.interpreted.delete(insnsi);
  }

  /** A load that cannot be done gives 0, where its function's table has it. Kernel: ex_handler_bpf */
  #fixUp(cpu: Vcpu, address: Kaddr): boolean {
    const hit = this.kernel.kallsyms.lookup(address);
    const fixup = hit && this.#fixups.get(hit.ksym.start)?.get(hit.offset);
    if (hit === undefined || fixup === undefined) return false;
    if (fixup.clears !== undefined) cpu.regs.set(fixup.clears.as(8).name as RegisterName, 0n);
    cpu.regs.set('rip', addrAdd(hit.ksym.start, fixup.resume));
    return true;
  }
}
