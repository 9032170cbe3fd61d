/*
 * The life of a trampoline image, from allocation to the moment when nobody can be in it.
 *
 *   imageAlloc -> live -> imagePut
 *                           |
 *        calls the original | does not
 *      +--------------------+--------------------+
 *      | jump ip_after_call -> ip_epilogue        | call_rcu_tasks_trace   (sleepable programs)
 *      | call_rcu_tasks        (preemptible: rev/)| call_rcu_tasks         (the rest of the image)
 *      | percpu_ref_kill       (calls in flight)  | work
 *      | call_rcu_tasks        (the epilogue)     |
 *      | work                                     |
 *      +--------------------+--------------------+
 *                           |
 *                         freed: ksym gone, text int3 and unmapped, charge returned
 *
 * Who waits for whom and why, and where the kernel's waits are too few: docs/lifetimes.md
 *
 * Kernel: kernel/bpf/trampoline.c
 */

import {
  type Code,
  BpfTrampImage as Field,
  prepareTrampoline,
  type TrampolineRequest,
} from '../jit/index.ts';
import { addrAdd, Bug, type ErrnoName, errnoName, type Kaddr, KernelError } from '../lib/index.ts';
import type { Ksym } from './kallsyms.ts';
import type { Kernel } from './kernel.ts';
import type { TrampLink } from './link.ts';
import { PercpuRef } from './percpu-ref.ts';
import type { BpfProg } from './prog.ts';
import { textPoke } from './text-poke.ts';

/** Arguments that go in registers, and so into an image. */
const MAX_ARGS = 6;

/** A wait on the way to being freed. */
type Wait = 'rcu-tasks-trace' | 'rcu-tasks' | 'percpu-ref' | 'rcu-tasks-epilogue';

/** What a retired image waits for now. */
export type ImageState = 'live' | Wait | 'work' | 'freed';

/** The states as a trace tells them. */
const STATE_NEWS: Readonly<Record<ImageState, string>> = {
  live: 'is live',
  'rcu-tasks-trace': 'waits for rcu-tasks-trace: sleepable programs',
  'rcu-tasks': 'waits for rcu-tasks: tasks in its code',
  'percpu-ref': 'waits for percpu_ref: calls between enter and exit',
  'rcu-tasks-epilogue': 'waits for rcu-tasks: tasks behind its exit',
  work: 'waits for the workqueue',
  freed: 'is freed',
};

/** One image. Kernel: struct bpf_tramp_image */
export class TrampImage {
  /** The struct bpf_tramp_image, which the image's code names. */
  readonly address: Kaddr;
  /** The code. */
  readonly image: Kaddr;
  /** Room for it, bytes. */
  readonly sizeBytes: number;
  readonly ksym: Ksym;
  readonly pcref: PercpuRef;
  ipAfterCall: Kaddr | undefined;
  ipEpilogue: Kaddr | undefined;
  /** How many of its programs may sleep. */
  nrSleepable = 0;
  /** Bytes of code; 0 until it is written. */
  length = 0;

  readonly #kernel: Kernel;
  #state: ImageState = 'live';
  #request: TrampolineRequest | undefined;
  /** What was emitted and is not in its place yet. */
  #draft: Uint8Array | undefined;
  #code: Code | undefined;
  /** Programs that this image keeps loaded; only with the `held` lifetime. */
  #held: BpfProg[] = [];
  #released: () => void = () => undefined;

  /** @param image room for the code, not written yet */
  constructor(kernel: Kernel, name: string, address: Kaddr, image: Kaddr, sizeBytes: number) {
    const { memory } = kernel.machine;
    this.#kernel = kernel;
    this.address = address;
    this.image = image;
    this.sizeBytes = sizeBytes;
    this.pcref = new PercpuRef(
      kernel.machine,
      kernel.grace,
      addrAdd(this.address, Field.pcref),
      () => this.#released(),
      kernel.bugs,
    );
    this.ksym = { name, start: this.image, sizeBytes, kind: 'bpf', code: () => this.code() };
    memory.writeU64(addrAdd(this.address, Field.image), this.image);
  }

  /** What it waits for, once it is retired. */
  get state(): ImageState {
    return this.#state;
  }

  set state(state: ImageState) {
    this.#state = state;
    this.#kernel.trace(`${this.title} ${STATE_NEWS[state]}`);
  }

  /** Its symbol, and the function it traces once that is known. */
  get title(): string {
    const { name } = this.#request ?? {};
    return name === undefined ? this.ksym.name : `${this.ksym.name} (${name})`;
  }

  /**
   * Emits for the image, which is not executable with it before `protect`. Once more is allowed until then.
   * @param links the programs it calls
   * @throws KernelError what arch_prepare_bpf_trampoline refuses
   */
  write(request: TrampolineRequest, links: readonly TrampLink[]): void {
    const { bugs, fail } = this.#kernel;
    fail.pass('emit');
    if (bugs.has('T2') && request.argSizes.length >= MAX_ARGS) {
      throw new KernelError('ENOTSUPP', 'arch_prepare_bpf_trampoline', `${request.name}: too many arguments`);
    }
    const prepared = prepareTrampoline(this.#kernel.emitter, request);
    if (prepared.bytes === undefined) {
      const code = errnoName(-prepared.ret) as ErrnoName;
      throw new KernelError(code, 'arch_prepare_bpf_trampoline', `${request.name}: ${prepared.why}`);
    }
    const { memory } = this.#kernel.machine;
    this.#draft = prepared.bytes;
    this.#request = request;
    this.#code = undefined;
    this.nrSleepable = links.filter(({ prog }) => prog.sleepable).length;
    this.dropProgs();
    if (this.#kernel.programLifetime === 'held') {
      for (const { prog } of links) {
        prog.get();
        this.#held.push(prog);
      }
    }
    this.length = prepared.bytes.length;
    if (prepared.ipAfterCall !== null && prepared.ipEpilogue !== null) {
      this.ipAfterCall = addrAdd(this.image, prepared.ipAfterCall);
      this.ipEpilogue = addrAdd(this.image, prepared.ipEpilogue);
      memory.writeU64(addrAdd(this.address, Field.ipAfterCall), this.ipAfterCall);
      memory.writeU64(addrAdd(this.address, Field.ipEpilogue), this.ipEpilogue);
    }
  }

  /**
   * Puts what was written where CPUs can execute it, and nobody can write it any more.
   * @throws KernelError where that can fail: v6.12
   * Kernel: set_memory_ro, set_memory_x (v6.1); arch_protect_bpf_trampoline (v6.12). Before, an image is
   * writable and executable all its life.
   */
  protect(): void {
    if (this.#draft === undefined) throw new Bug(`${this.ksym.name} is not written`);
    if (this.#kernel.rules.imageMemory === 'pack') this.#kernel.fail.pass('protect');
    this.#kernel.machine.patchText(this.image, this.#draft);
    this.#draft = undefined;
  }

  /** The bytes as they stand in memory now. */
  bytes(): Uint8Array {
    return this.#kernel.machine.memory.bytes(this.image, this.length).slice();
  }

  /**
   * Steps, notes and relocations. Made when first asked for, by emitting again: an emitter is a pure
   * function, and a listing is rare. The bytes are those in memory, a retired image's jump included.
   */
  code(): Code | undefined {
    if (this.#request === undefined || this.state === 'freed') return undefined;
    if (this.#code === undefined) {
      const again = prepareTrampoline(this.#kernel.emitter, this.#request, { provenance: true });
      this.#code = again.bytes === undefined ? undefined : again.code;
    }
    return this.#code === undefined ? undefined : { ...this.#code, bytes: this.bytes() };
  }

  /** Lets go of the programs it kept loaded. */
  dropProgs(): void {
    for (const prog of this.#held) prog.put();
    this.#held = [];
  }

  /** Kills the percpu_ref. @param released called when the last call has left. Kernel: percpu_ref_kill, __bpf_tramp_image_release */
  kill(released: () => void): void {
    this.#released = released;
    this.pcref.kill();
  }
}

/**
 * Allocates an image: struct, charge, memory, percpu_ref, symbol. Each failure undoes what went before.
 * @param index the image's number, where images have one
 * @throws KernelError ENOMEM; EPERM over the charge limit. Kernel: bpf_tramp_image_alloc
 */
export function imageAlloc(kernel: Kernel, key: bigint, index: number, sizeBytes: number): TrampImage {
  const { bugs, fail, machine, modmem, rules } = kernel;
  const name = `bpf_trampoline_${key}${rules.numbersImages ? `_${index >>> 0}` : ''}`;
  const undo: (() => void)[] = [];
  try {
    fail.pass('alloc-im');
    const address = machine.memory.kmalloc(Field.size, `bpf_tramp_image ${name}`);
    if (!bugs.has('im-kept')) undo.push(() => machine.memory.kfree(address));
    fail.pass('charge');
    modmem.charge(sizeBytes);
    if (!bugs.has('charge-kept')) undo.push(() => modmem.uncharge(sizeBytes));
    fail.pass('alloc-image');
    const image = kernel.imageMemory.alloc(sizeBytes, name);
    if (!bugs.has('text-kept')) undo.push(() => kernel.imageMemory.free(image));
    fail.pass('percpu-ref');
    const im = new TrampImage(kernel, name, address, image, sizeBytes);
    kernel.kallsyms.add(im.ksym);
    kernel.images.add(im);
    return im;
  } catch (error) {
    for (const step of undo.reverse()) step();
    throw error;
  }
}

/** Gives an image's memory back. Kernel: __bpf_tramp_image_put_deferred */
export function imageFree(kernel: Kernel, im: TrampImage): void {
  const { bugs } = kernel;
  const { memory } = kernel.machine;
  if (im.state === 'freed') throw new Bug(`${im.ksym.name} is freed twice`);
  if (!bugs.has('ksym-kept')) kernel.kallsyms.remove(im.ksym);
  kernel.imageMemory.free(im.image);
  if (!bugs.has('uncharged-never')) kernel.modmem.uncharge(im.sizeBytes);
  if (!bugs.has('pcref-kept')) im.pcref.exit();
  memory.kfree(im.address);
  if (!bugs.has('programs-kept')) im.dropProgs();
  im.state = 'freed';
  kernel.images.delete(im);
  kernel.retired.delete(im);
}

/**
 * Retires an image that nothing calls any more; it is freed once nobody is left in it.
 * Kernel: bpf_tramp_image_put
 */
export function imagePut(kernel: Kernel, im: TrampImage): void {
  kernel.retired.add(im);
  if (kernel.bugs.has('L1')) im.dropProgs();
  if (kernel.bugs.has('L2')) kernel.grace.callRcuTasks(() => im.dropProgs());
  if (im.ipAfterCall === undefined || im.ipEpilogue === undefined || kernel.bugs.has('L3')) {
    waitFor(kernel, im, entryWaits(kernel, im));
    return;
  }
  // Calls that are inside the original must not come back to programs that may be gone by then.
  if (!kernel.bugs.has('no-retire-jump')) retire(kernel, im, im.ipAfterCall, im.ipEpilogue);
  waitFor(kernel, im, callingWaits(kernel));
}

/**
 * An image that does not call the original: nobody stays in it for long but in sleepable programs.
 *
 * One wait for these and one for the code around them is what the kernel does, and too little: a task that
 * is before a sleepable program during the first wait passes the second by sleeping in the program. Each
 * sleepable program may hide a task once.
 */
function entryWaits({ bugs, programLifetime }: Kernel, im: TrampImage): Wait[] {
  const pair: Wait[] = [];
  if (!bugs.has('no-trace-wait')) pair.push('rcu-tasks-trace');
  if (!bugs.has('no-tasks-after-trace')) pair.push('rcu-tasks');
  if (bugs.has('swap-trace-tasks')) pair.reverse();
  const once = bugs.has('one-trace-wait') || bugs.has('swap-trace-tasks');
  if (programLifetime === 'kernel' || once) return pair;
  return [...pair, ...Array.from({ length: im.nrSleepable }, () => pair).flat()];
}

/** An image that calls the original: calls hold the percpu_ref, from a little after their start to a little before their end. */
function callingWaits(kernel: Kernel): Wait[] {
  const { bugs, rules } = kernel;
  // A task preempted before __bpf_tramp_enter holds no reference yet.
  const waits = rules.waitsBeforeKill(kernel) && !bugs.has('no-tasks-before-kill');
  const before: Wait[] = waits ? ['rcu-tasks'] : [];
  const after: Wait[] = bugs.has('no-tasks-after-release') ? [] : ['rcu-tasks-epilogue'];
  if (bugs.has('no-kill')) return [...before, ...after];
  if (bugs.has('swap-tasks-kill')) return ['percpu-ref', ...before, ...after];
  if (bugs.has('swap-kill-release')) return [...before, ...after, 'percpu-ref'];
  return [...before, 'percpu-ref', ...after];
}

/** Waits for one after the other, then frees the image. Kernel: the callbacks named __bpf_tramp_image_ */
function waitFor(kernel: Kernel, im: TrampImage, [next, ...rest]: readonly Wait[]): void {
  const { grace } = kernel;
  im.state = next ?? 'work';
  const then = (): void => waitFor(kernel, im, rest);
  switch (next) {
    case 'rcu-tasks-trace':
      grace.callRcuTasksTrace(then);
      return;
    case 'rcu-tasks':
    case 'rcu-tasks-epilogue':
      grace.callRcuTasks(then);
      return;
    case 'percpu-ref':
      im.kill(then);
      return;
    case undefined:
      grace.scheduleWork(() => imageFree(kernel, im));
  }
}

function retire(kernel: Kernel, im: TrampImage, ipAfterCall: Kaddr, ipEpilogue: Kaddr): void {
  try {
    textPoke(kernel, ipAfterCall, 'JUMP', null, ipEpilogue);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    kernel.warnOn(true, `bpf_tramp_image_put: ${im.ksym.name}: ${error.message}`);
  }
}
