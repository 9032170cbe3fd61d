/*
 * The helpers as guest functions. Most are a stub that hands the call to the host:
 *
 *   int3                    the machine's owner has it before it becomes a fault, and answers
 *   ret
 *   mov r10b, [r10]         entered when the helper was given an address where nothing is: the fault, in the
 *   mov [r10], r10b         helper, that a kernel would have
 *
 * A helper that calls functions of the program does so in the guest, too: the host writes a return address onto
 * the stack and lets the function run; when it comes back it meets the int3 there. So steps are counted, watched
 * and bounded as all others are, a fault is a fault of the call in flight, and nothing is ever run within a run.
 */

import type { RegisterName, Vcpu } from '../../emu/index.ts';
import { addrAdd, type Kaddr, KernelError, kaddr } from '../../lib/index.ts';
import type { Kernel } from '../../tramp/index.ts';
import type { Callback, Helper, HelperAnswer, HelperWorld } from '../helpers/helper.ts';
import { helpersOf } from '../helpers/table.ts';
import { MemoryFault } from '../interp/memory.ts';

const INT3 = 0xcc;
const RET = 0xc3;
/** Offsets in a stub. */
const Stub = { ret: 1, read: 2, write: 5, jump: 8 } as const;
const STUB = [INT3, RET, 0x45, 0x8a, 0x12, 0x45, 0x88, 0x12, 0xff, 0xe0];
const ALIGN = 16;

const ARGS: readonly RegisterName[] = ['rdi', 'rsi', 'rdx', 'rcx', 'r8'];

/** What an int3 in the text of helpers means. */
export type StubHandler = (cpu: Vcpu, address: Kaddr) => void;

/** A helper that waits for a function of the program to return. */
interface Waiting {
  readonly course: Generator<Callback, bigint | number, bigint>;
  /** Of the helper's stub, and the stack pointer that it was called with. */
  readonly stub: Kaddr;
  readonly rsp: bigint;
}

export class HelperText {
  /** What calls are counted from. Kernel: __bpf_call_base */
  readonly callBase: Kaddr;
  readonly #world: HelperWorld;
  readonly #addresses = new Map<number, Kaddr>();
  readonly #byAddress = new Map<Kaddr, StubHandler>();
  readonly #byNumber = new Map<number, Helper>();
  /** By the stack pointer that their function will return with. */
  readonly #waiting = new Map<bigint, Waiting>();
  readonly #callbackReturn: Kaddr;

  constructor(world: HelperWorld, extra: Readonly<Record<string, StubHandler>>) {
    const { kernel } = world;
    this.#world = world;
    const helpers = helpersOf(kernel.revision);
    const { vars } = kernel.machine.percpu;
    const parts = [
      { name: '__bpf_call_base', bytes: STUB },
      { name: 'bpf_callback_return', bytes: STUB },
      ...Object.keys(extra).map((name) => ({ name, bytes: STUB })),
      ...helpers.map(({ name, code }) => ({ name, bytes: code?.(vars) ?? STUB })),
    ];
    const places = place(kernel, parts);
    const at = (name: string): Kaddr => places.get(name) as Kaddr;
    this.callBase = at('__bpf_call_base');
    this.#callbackReturn = at('bpf_callback_return');
    for (const helper of helpers) {
      this.#addresses.set(helper.id, at(helper.name));
      this.#byNumber.set(helper.id, helper);
      if (helper.code === undefined) {
        this.#byAddress.set(at(helper.name), (cpu, address) => this.#enter(helper, cpu, address));
      }
    }
    for (const [name, handler] of Object.entries(extra)) this.#byAddress.set(at(name), handler);
    this.#byAddress.set(this.#callbackReturn, (cpu) => this.#resume(cpu));
  }

  /** Where a helper stands; undefined for one that is not there. */
  address(id: number): Kaddr | undefined {
    return this.#addresses.get(id);
  }

  helper(id: number): Helper | undefined {
    return this.#byNumber.get(id);
  }

  /** The number of the helper that stands at an address. */
  numberAt(address: Kaddr): number | undefined {
    for (const [id, place] of this.#addresses) if (place === address) return id;
    return undefined;
  }

  /** Answers an int3. @returns false when it is none of these */
  handle(cpu: Vcpu, address: Kaddr): boolean {
    const handler = this.#byAddress.get(address);
    handler?.(cpu, address);
    return handler !== undefined;
  }

  #enter(helper: Helper, cpu: Vcpu, stub: Kaddr): void {
    const { regs } = cpu;
    const rsp = regs.get('rsp');
    const [r1, r2, r3, r4, r5] = ARGS.map((name) => regs.get(name)) as [
      bigint,
      bigint,
      bigint,
      bigint,
      bigint,
    ];
    answer(cpu, stub, () => {
      const frame = { rbp: regs.get('rbp'), returnTo: this.#world.guest.read(rsp, 8) };
      const result = helper.run({ world: this.#world, cpu: cpu.id, args: [r1, r2, r3, r4, r5], frame });
      return isCourse(result) ? this.#proceed(cpu, { course: result, stub, rsp }, 0n) : result;
    });
  }

  /** A function of the program has returned. */
  #resume(cpu: Vcpu): void {
    const rsp = cpu.regs.get('rsp');
    const waiting = this.#waiting.get(rsp);
    if (waiting === undefined) {
      fault(cpu, this.#callbackReturn, new MemoryFault('read', 0n, 8));
      return;
    }
    this.#waiting.delete(rsp);
    answer(cpu, waiting.stub, () => this.#proceed(cpu, waiting, cpu.regs.get('rax')));
  }

  /** Goes on with a helper until it wants a function called. @returns r0, or undefined when the function runs next */
  #proceed(cpu: Vcpu, waiting: Waiting, input: bigint): bigint | number | undefined {
    const { regs } = cpu;
    const { done, value } = waiting.course.next(input);
    if (done === true) {
      regs.set('rsp', waiting.rsp);
      return value;
    }
    // 16-byte aligned before the call
    const top = waiting.rsp & ~15n;
    this.#waiting.set(top, waiting);
    this.#world.guest.write(top - 8n, 8, this.#callbackReturn);
    regs.set('rsp', top - 8n);
    ARGS.forEach((name, i) => {
      regs.set(name, value.args[i] ?? 0n);
    });
    regs.set('rax', value.fn);
    regs.set('rip', addrAdd(waiting.stub, Stub.jump));
    return undefined;
  }
}

const isCourse = (result: HelperAnswer): result is Generator<Callback, bigint | number, bigint> =>
  typeof result === 'object';

/**
 * Has a stub return what `work` gives; nothing is done when that is undefined. A bad address faults in the stub, and
 * what the kernel refuses is its negative error number.
 */
export function answer(cpu: Vcpu, stub: Kaddr, work: () => bigint | number | undefined): void {
  try {
    const result = work();
    if (result === undefined) return;
    cpu.regs.set('rax', BigInt.asUintN(64, BigInt(result)));
    cpu.regs.set('rip', addrAdd(stub, Stub.ret));
  } catch (error) {
    if (error instanceof MemoryFault) fault(cpu, stub, error);
    else if (error instanceof KernelError) {
      cpu.regs.set('rax', BigInt.asUintN(64, BigInt(-error.errno)));
      cpu.regs.set('rip', addrAdd(stub, Stub.ret));
    } else throw error;
  }
}

/** Makes the access in the guest that the host could not make. */
function fault(cpu: Vcpu, stub: Kaddr, { access, address }: MemoryFault): void {
  cpu.regs.set('r10', kaddr(address));
  cpu.regs.set('rip', addrAdd(stub, Stub[access]));
}

/** Writes functions as kernel text, with their symbols. */
function place(
  kernel: Kernel,
  parts: readonly { readonly name: string; readonly bytes: readonly number[] }[],
): ReadonlyMap<string, Kaddr> {
  const { machine, kallsyms } = kernel;
  const offsets: number[] = [];
  let length = 0;
  for (const { bytes } of parts) {
    offsets.push(length);
    length += Math.ceil(bytes.length / ALIGN) * ALIGN;
  }
  const text = new Uint8Array(length).fill(INT3);
  for (const [i, { bytes }] of parts.entries()) text.set(bytes, offsets[i]);
  const base = machine.memory.allocKernelText(length, 'BPF helpers');
  machine.patchText(base, text);
  return new Map(
    parts.map(({ name, bytes }, i) => {
      const start = addrAdd(base, offsets[i] as number);
      kallsyms.add({ name, start, sizeBytes: bytes.length, kind: 'kernel' });
      return [name, start];
    }),
  );
}
