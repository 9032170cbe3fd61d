import { KernelError } from '../lib/index.ts';

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
