/*
 * A small kernel to trace: functions and programs made with the assembler, on a machine of their own.
 *
 *   f(a, b)      nop5 at its entry; counts; may sleep; returns a + b
 *   programs     count their runs per CPU; may sleep; return a value that can be set
 */

import { createMachine, type Machine } from '../../emu/index.ts';
import { Assembler, gsAt, NOP5, piece, qword, rax, rdi, rsi } from '../../jit/index.ts';
import type { Kaddr } from '../../lib/index.ts';
import type { FuncModel } from '../../obj/index.ts';
import { type AttachKind, BpfProg, Kernel, type KernelOptions, KModule } from '../../tramp/index.ts';

/** int f(long a, long b) */
export const MODEL: FuncModel = {
  name: 'f',
  args: ['a', 'b'].map((name) => ({ name, type: 'long', sizeBytes: 8, signed: true, pointer: false })),
  ret: { type: 'long', sizeBytes: 8, signed: true, pointer: false },
};

export interface GuestFunction {
  readonly name: string;
  readonly addr: Kaddr;
  readonly model: FuncModel;
  readonly module: KModule;
  /** How often the body behind the site was run, on all CPUs. */
  readonly runs: () => bigint;
  readonly key: bigint;
}

export interface GuestProgram {
  readonly prog: BpfProg;
  /** How often its code was run, on all CPUs. */
  readonly runs: () => bigint;
}

export interface Guest {
  readonly machine: Machine;
  readonly kernel: Kernel;
  /** Makes a traceable function in a module of its own (or in kernel text). */
  readonly addFunction: (name: string, options?: FunctionOptions) => GuestFunction;
  /** Makes a program. */
  readonly addProgram: (name: string, kind: AttachKind, options?: ProgramOptions) => GuestProgram;
  readonly close: () => void;
}

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
}

export interface ProgramOptions {
  readonly sleepable?: boolean;
  /** Sleeps once per run. */
  readonly sleeps?: boolean;
  readonly returns?: number;
  /** Calls a function, with arguments 1 and 2. */
  readonly calls?: Kaddr;
  readonly callsGetFuncIp?: boolean;
}

type Ctx = { readonly asm: Assembler };

/** Builds a guest. Its text is emitted by the same assembler that emits images. */
export async function createGuest(
  options: Partial<KernelOptions> & { readonly cpus?: number } = {},
): Promise<Guest> {
  const { cpus = 1, ...kernelOptions } = options;
  const machine = await createMachine({ cpus });
  const kernel = new Kernel(machine, { revision: 'v5.15', ...kernelOptions });
  let functions = 0;

  const place = (name: string, emit: (asm: Assembler) => void): { address: Kaddr; length: number } => {
    const address = machine.memory.allocText(4096, name);
    const asm = new Assembler(address);
    piece('guest', ({ asm: inner }: Ctx) => emit(inner))({ asm });
    const bytes = asm.bytes();
    machine.patchText(address, bytes);
    return { address, length: bytes.length };
  };

  const counter = (): { at: number; read: () => bigint } => {
    const at = machine.percpu.alloc(8, 8);
    const read = (): bigint =>
      machine.cpus.reduce((sum, { id }) => sum + machine.memory.readU64(machine.percpu.address(at, id)), 0n);
    return { at, read };
  };

  const addFunction = (name: string, fn: FunctionOptions = {}): GuestFunction => {
    const runs = counter();
    const { address, length } = place(name, (asm) => {
      asm.raw(NOP5);
      asm.inc(qword(gsAt(runs.at)));
      asm.push(rdi);
      asm.push(rsi);
      if (fn.calls !== undefined) asm.call(fn.calls, 'callee');
      if (fn.sleeps === true) asm.call(kernel.scheduleEntry, 'schedule');
      asm.pop(rsi);
      asm.pop(rdi);
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
      sites: fn.plain === true ? [] : [{ address, function: name, offset: 0, kind: 'nop' }],
      origin: fn.origin ?? 'module',
      free: () => machine.memory.freeText(address),
    });
    const ret = { ...MODEL.ret, sizeBytes: fn.retSize ?? 8 } as const;
    return {
      name,
      addr: address,
      model: { ...MODEL, name, ret },
      module,
      runs: runs.read,
      key: (1n << 32n) | 0x8000_0000n | BigInt(++functions),
    };
  };

  const addProgram = (name: string, kind: AttachKind, program: ProgramOptions = {}): GuestProgram => {
    const runs = counter();
    const { address, length } = place(`bpf_prog_${name}`, (asm) => {
      asm.inc(qword(gsAt(runs.at)));
      if (program.sleeps === true) asm.call(kernel.scheduleEntry, 'schedule');
      if (program.calls !== undefined) {
        asm.movImm(rdi, 1);
        asm.movImm(rsi, 2);
        asm.call(program.calls, 'callee');
      }
      asm.movImm(rax, program.returns ?? 0);
      asm.ret();
    });
    const ksym = { name: `bpf_prog_${name}`, start: address, sizeBytes: length, kind: 'bpf' } as const;
    kernel.kallsyms.add(ksym);
    const prog = new BpfProg(kernel, {
      name,
      kind,
      bpfFunc: address,
      sleepable: program.sleepable ?? false,
      callsGetFuncIp: program.callsGetFuncIp ?? false,
      release: () => {
        kernel.kallsyms.remove(ksym);
        machine.memory.freeText(address);
      },
    });
    return { prog, runs: runs.read };
  };

  return { machine, kernel, addFunction, addProgram, close: () => machine.close() };
}
