/*
 * The life of a trampoline image, from allocation to the moment when nobody can be in it.
 *
 *   imageAlloc -> live -> imagePut
 *                           |
 *        calls the original | does not
 *      +--------------------+--------------------+
 *      | jump ip_after_call -> ip_epilogue        | call_rcu_tasks_trace   (sleepable programs)
 *      | call_rcu_tasks        (preemptible only) | call_rcu_tasks         (the rest of the image)
 *      | percpu_ref_kill       (calls in flight)  | work
 *      | call_rcu_tasks        (the epilogue)     |
 *      | work                                     |
 *      +--------------------+--------------------+
 *                           |
 *                         freed: ksym gone, text int3 and unmapped, charge returned
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
import { PercpuRef } from './percpu-ref.ts';
import { textPoke } from './text-poke.ts';

/** Room of an image, bytes. */
export const IMAGE_BYTES = 4096;

/** Pages of executable memory charged to BPF. Kernel: bpf_jit_charge_modmem, kernel/bpf/core.c */
export class ModmemCharge {
  readonly limitPages: number;
  #pages = 0;

  constructor(limitPages: number) {
    this.limitPages = limitPages;
  }

  get pages(): number {
    return this.#pages;
  }

  /** @throws KernelError EPERM over the limit */
  charge(pages: number): void {
    if (this.#pages + pages > this.limitPages) {
      throw new KernelError('EPERM', 'bpf_jit_charge_modmem', `the limit is ${this.limitPages} pages`);
    }
    this.#pages += pages;
  }

  uncharge(pages: number): void {
    this.#pages -= pages;
  }
}

/** What a retired image waits for next. */
export type ImageState =
  | 'live'
  | 'rcu-tasks-trace'
  | 'rcu-tasks'
  | 'percpu-ref'
  | 'rcu-tasks-epilogue'
  | 'work'
  | 'freed';

/** One image. Kernel: struct bpf_tramp_image */
export class TrampImage {
  /** The struct bpf_tramp_image, which the image's code names. */
  readonly address: Kaddr;
  /** The code. */
  readonly image: Kaddr;
  readonly ksym: Ksym;
  readonly pcref: PercpuRef;
  state: ImageState = 'live';
  ipAfterCall: Kaddr | undefined;
  ipEpilogue: Kaddr | undefined;
  /** Bytes of code; 0 until it is written. */
  length = 0;

  readonly #kernel: Kernel;
  #request: TrampolineRequest | undefined;
  #code: Code | undefined;

  constructor(kernel: Kernel, name: string) {
    const { memory } = kernel.machine;
    this.#kernel = kernel;
    this.address = memory.kmalloc(Field.size, `bpf_tramp_image ${name}`);
    this.image = memory.allocText(IMAGE_BYTES, name);
    this.pcref = new PercpuRef(kernel.machine, kernel.grace, addrAdd(this.address, Field.pcref), () =>
      this.released(),
    );
    this.ksym = { name, start: this.image, sizeBytes: IMAGE_BYTES, kind: 'bpf', code: () => this.code() };
    memory.writeU64(addrAdd(this.address, Field.image), this.image);
  }

  /**
   * Emits into the image.
   * @throws KernelError what arch_prepare_bpf_trampoline refuses
   */
  write(request: TrampolineRequest): void {
    const prepared = prepareTrampoline(this.#kernel.revision, request);
    if (prepared.bytes === undefined) {
      const code = errnoName(-prepared.ret) as ErrnoName;
      throw new KernelError(code, 'arch_prepare_bpf_trampoline', prepared.why);
    }
    const { memory } = this.#kernel.machine;
    this.#kernel.machine.patchText(this.image, prepared.bytes);
    this.#request = request;
    this.length = prepared.bytes.length;
    if (prepared.ipAfterCall !== null && prepared.ipEpilogue !== null) {
      this.ipAfterCall = addrAdd(this.image, prepared.ipAfterCall);
      this.ipEpilogue = addrAdd(this.image, prepared.ipEpilogue);
      memory.writeU64(addrAdd(this.address, Field.ipAfterCall), this.ipAfterCall);
      memory.writeU64(addrAdd(this.address, Field.ipEpilogue), this.ipEpilogue);
    }
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
      const again = prepareTrampoline(this.#kernel.revision, this.#request, { provenance: true });
      this.#code = again.bytes === undefined ? undefined : again.code;
    }
    return this.#code === undefined ? undefined : { ...this.#code, bytes: this.bytes() };
  }

  /** Callback, when percpu_ref_kill is through and the last call has left. Kernel: __bpf_tramp_image_release */
  released(): void {
    this.state = 'rcu-tasks-epilogue';
    this.#kernel.grace.callRcuTasks(() => scheduleFree(this.#kernel, this));
  }
}

/**
 * Allocates an image: charge, page, percpu_ref, symbol. Each failure undoes what went before.
 * @throws KernelError EPERM over the charge limit. Kernel: bpf_tramp_image_alloc
 */
export function imageAlloc(kernel: Kernel, key: bigint, index: number): TrampImage {
  kernel.modmem.charge(1);
  try {
    const im = new TrampImage(kernel, `bpf_trampoline_${key}_${index}`);
    kernel.kallsyms.add(im.ksym);
    return im;
  } catch (error) {
    kernel.modmem.uncharge(1);
    throw error;
  }
}

/** Frees an image that was never reachable. Simplified away in v5.15, which leaks it (docs/fidelity.md). */
export function imageFree(kernel: Kernel, im: TrampImage): void {
  const { memory } = kernel.machine;
  if (im.state === 'freed') throw new Bug(`${im.ksym.name} is freed twice`);
  kernel.kallsyms.remove(im.ksym);
  memory.freeText(im.image);
  kernel.modmem.uncharge(1);
  im.pcref.exit();
  memory.kfree(im.address);
  im.state = 'freed';
  kernel.retired.delete(im);
}

/**
 * Retires an image that nothing calls any more; it is freed once nobody is left in it.
 * Kernel: bpf_tramp_image_put
 */
export function imagePut(kernel: Kernel, im: TrampImage): void {
  kernel.retired.add(im);
  if (im.ipAfterCall === undefined || im.ipEpilogue === undefined) {
    // Without a call of the original nobody stays for long: sleepable programs, then the code around them.
    im.state = 'rcu-tasks-trace';
    kernel.grace.callRcuTasksTrace(() => {
      im.state = 'rcu-tasks';
      kernel.grace.callRcuTasks(() => scheduleFree(kernel, im));
    });
    return;
  }
  // Calls that are inside the original must not come back to programs that may be gone by then.
  try {
    textPoke(kernel, im.ipAfterCall, 'JUMP', null, im.ipEpilogue);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    kernel.warnOn(true, `bpf_tramp_image_put: ${error.message}`);
  }
  if (!kernel.preemption) {
    im.state = 'percpu-ref';
    im.pcref.kill();
    return;
  }
  // A task preempted before __bpf_tramp_enter holds no reference yet.
  im.state = 'rcu-tasks';
  kernel.grace.callRcuTasks(() => {
    im.state = 'percpu-ref';
    im.pcref.kill();
  });
}

/** Kernel: __bpf_tramp_image_put_rcu */
function scheduleFree(kernel: Kernel, im: TrampImage): void {
  im.state = 'work';
  kernel.grace.scheduleWork(() => imageFree(kernel, im));
}
