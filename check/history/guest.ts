/*
 * A small kernel to trace: functions and programs made with the assembler.
 *
 *   f(a, b)      nop5 at its entry; counts; may call, may sleep; returns a + b
 *   programs     count their runs per CPU; may sleep, may call; return a value that can be set
 */

import { createMachine, type Machine } from '../../emu/index.ts';
import { Assembler, gsAt, NOP5, piece, ptr, qword, rax, rcx, rdi, rsi } from '../../jit/index.ts';
import { addrAdd, type Kaddr } from '../../lib/index.ts';
import {
  type AttachKind,
  type AttachTarget,
  BpfProg,
  Kernel,
  type KernelOptions,
  KModule,
} from '../../tramp/index.ts';

type FuncModel = AttachTarget['model'];

/** int f(long a, long b) */
export const MODEL: FuncModel = {
  name: 'f',
  args: ['a', 'b'].map(long),
  ret: { type: 'long', sizeBytes: 8, signed: true, pointer: false },
};

function long(name: string): FuncModel['args'][number] {
  return { name, type: 'long', sizeBytes: 8, signed: true, pointer: false };
}

export interface GuestFunction {
  readonly name: string;
  readonly addr: Kaddr;
  /** Bytes of code. */
  readonly sizeBytes: number;
  readonly model: FuncModel;
  readonly module: KModule;
  /** How often the body behind the site was run, on all CPUs. */
  readonly runs: () => bigint;
  readonly key: bigint;
  /** The BPF program that it is, if it has a bare nop in place of a site. */
  readonly prog?: BpfProg;
}

export interface GuestProgram {
  readonly prog: BpfProg;
  /** How often its code was run, on all CPUs. */
  readonly runs: () => bigint;
}

/** Emits into what is being made. It may use rax, rcx and rdx. */
export type Emit = (asm: Assembler) => void;

export interface FunctionOptions {
  /** Sleeps once per call. */
  readonly sleeps?: boolean;
  /** Calls another function first. */
  readonly calls?: Kaddr;
  readonly origin?: 'module' | 'kernel';
  /** No ftrace site, just the nop. */
  readonly plain?: boolean;
  /** The result's size; 0 for void. Default 8. */
  readonly retSize?: 0 | 8;
  /** Number of arguments. Default 2. */
  readonly args?: number;
  /** Default: another one for each function. */
  readonly key?: bigint;
  /** It is a BPF program. Default false. */
  readonly isProgram?: boolean;
  /** Where in text that the caller owns it goes. Default: pages of its own. */
  readonly at?: Kaddr;
  /** Behind the site, and before the return. */
  readonly enter?: Emit;
  readonly leave?: Emit;
}

export interface ProgramOptions {
  readonly sleepable?: boolean;
  /** Sleeps once per run. */
  readonly sleeps?: boolean;
  readonly returns?: number;
  /** Calls a function, with arguments 1 and 2. */
  readonly calls?: Kaddr;
  /** It does so only where the traced call's second argument is this. */
  readonly callsWhere?: number;
  readonly callsGetFuncIp?: boolean;
  /** At the start, and before the return. */
  readonly enter?: Emit;
  readonly leave?: Emit;
}

type Ctx = { readonly asm: Assembler };

const NOTHING: Emit = () => undefined;

export class Guest {
  readonly machine: Machine;
  readonly kernel: Kernel;
  /** Per-CPU words that it took to count runs, and keeps. */
  counters = 0;
  #functions = 0;

  constructor(kernel: Kernel) {
    this.machine = kernel.machine;
    this.kernel = kernel;
  }

  /** Makes a traceable function in a module of its own (or in kernel text). */
  addFunction(name: string, options: FunctionOptions = {}): GuestFunction {
    const { kernel, machine } = this;
    const { enter = NOTHING, leave = NOTHING, at, args = MODEL.args.length } = options;
    const runs = this.#counter();
    const place = at ?? this.#text(name, options.origin ?? 'module');
    const { address, length } = this.#place(place, (asm) => {
      asm.raw(NOP5);
      asm.inc(qword(gsAt(runs.at)));
      enter(asm);
      asm.push(rdi);
      asm.push(rsi);
      if (options.calls !== undefined) asm.call(options.calls, 'callee');
      if (options.sleeps === true) asm.call(kernel.scheduleEntry, 'schedule');
      asm.pop(rsi);
      asm.pop(rdi);
      leave(asm);
      asm.mov(rax, rdi);
      asm.alu('add', rax, rsi);
      asm.ret();
    });
    const symbol = { name, address, sizeBytes: length, binding: 'global', type: 'func' } as const;
    const module = new KModule(kernel, {
      name,
      text: [{ address, sizeBytes: length }],
      symbols: [symbol],
      functions: [symbol],
      sites: options.plain === true ? [] : [{ address, function: name, offset: 0, kind: 'nop' }],
      origin: options.origin ?? 'module',
      free: () => {
        if (at === undefined) machine.memory.freeText(address);
      },
    });
    const ret = { ...MODEL.ret, sizeBytes: options.retSize ?? 8 } as const;
    const names = [...MODEL.args, ...Array.from({ length: args - 2 }, (_, i) => long(`c${i}`))];
    this.#functions++;
    return {
      name,
      addr: address,
      sizeBytes: length,
      model: { ...MODEL, name, ret, args: names },
      module,
      runs: runs.read,
      key: options.key ?? (1n << 32n) | 0x8000_0000n | BigInt(this.#functions),
      ...(options.isProgram === true
        ? { prog: new BpfProg(kernel, { name, kind: 'fentry', bpfFunc: address }) }
        : {}),
    };
  }

  /** Makes a program. */
  addProgram(name: string, kind: AttachKind, options: ProgramOptions = {}): GuestProgram {
    const { kernel, machine } = this;
    const { enter = NOTHING, leave = NOTHING } = options;
    const runs = this.#counter();
    const { address, length } = this.#place(this.#text(`bpf_prog_${name}`, 'module'), (asm) => {
      asm.inc(qword(gsAt(runs.at)));
      enter(asm);
      if (options.sleeps === true) asm.call(kernel.scheduleEntry, 'schedule');
      const otherwise = asm.label('no_call');
      if (options.calls !== undefined) {
        if (options.callsWhere !== undefined) {
          asm.movImm(rcx, options.callsWhere);
          asm.mov(rax, ptr(rdi, 8), 'the second argument');
          asm.alu('cmp', rax, rcx);
          asm.jccShort('ne', otherwise);
        }
        asm.movImm(rdi, 1);
        asm.movImm(rsi, 2);
        asm.call(options.calls, 'callee');
      }
      asm.bind(otherwise);
      leave(asm);
      asm.movImm(rax, options.returns ?? 0);
      asm.ret();
    });
    const ksym = { name: `bpf_prog_${name}`, start: address, sizeBytes: length, kind: 'bpf' } as const;
    kernel.kallsyms.add(ksym);
    const prog = new BpfProg(kernel, {
      name,
      kind,
      bpfFunc: address,
      sleepable: options.sleepable ?? false,
      callsGetFuncIp: options.callsGetFuncIp ?? false,
      release: () => {
        kernel.kallsyms.remove(ksym);
        machine.memory.freeText(address);
      },
    });
    return { prog, runs: runs.read };
  }

  /** Gives the machine back. */
  close(): void {
    this.machine.close();
  }

  #text(name: string, origin: 'module' | 'kernel'): Kaddr {
    const { memory } = this.machine;
    return origin === 'kernel' ? memory.allocKernelText(4096, name) : memory.allocText(4096, name);
  }

  #place(address: Kaddr, emit: Emit): { address: Kaddr; length: number } {
    const asm = new Assembler(address);
    piece('guest', ({ asm: inner }: Ctx) => emit(inner))({ asm });
    const bytes = asm.bytes();
    this.machine.patchText(address, bytes);
    return { address, length: bytes.length };
  }

  /** A per-CPU word that counts, and its sum. */
  #counter(): { at: number; read: () => bigint } {
    const { cpus, memory, percpu } = this.machine;
    const at = percpu.alloc(8, 8);
    this.counters++;
    const read = (): bigint => cpus.reduce((sum, { id }) => sum + memory.readU64(percpu.address(at, id)), 0n);
    return { at, read };
  }
}

/** A guest on a machine of its own. */
export async function createGuest(
  options: Partial<KernelOptions> & { readonly cpus?: number } = {},
): Promise<Guest> {
  const { cpus = 1, ...kernelOptions } = options;
  const machine = await createMachine({ cpus });
  return new Guest(new Kernel(machine, { revision: 'v5.15', ...kernelOptions }));
}

/** The first byte behind a function. */
export function endOf({ addr, sizeBytes }: GuestFunction): Kaddr {
  return addrAdd(addr, sizeBytes);
}
