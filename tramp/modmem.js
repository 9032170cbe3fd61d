import { KernelError } from '../lib/index.js';
const PAGE_BYTES = 4096;
/**
 * Executable memory charged to BPF: by the page before v6.1, by the byte from then on.
 * Kernel: bpf_jit_charge_modmem, kernel/bpf/core.c
 */
export class ModmemCharge {
    limitPages;
    #unitBytes;
    #units = 0;
    /** @param unitBytes what one unit of charge stands for; default a page */
    constructor(limitPages, unitBytes = PAGE_BYTES) {
        this.limitPages = limitPages;
        this.#unitBytes = unitBytes;
    }
    /** What is charged, in the revision's units. */
    get units() {
        return this.#units;
    }
    get bytes() {
        return this.#units * this.#unitBytes;
    }
    /** The same in pages; not a whole number where images share a page. */
    get pages() {
        return this.bytes / PAGE_BYTES;
    }
    /** @throws KernelError EPERM over the limit */
    charge(sizeBytes) {
        if ((this.bytes + sizeBytes) / PAGE_BYTES > this.limitPages) {
            throw new KernelError('EPERM', 'bpf_jit_charge_modmem', `the limit is ${this.limitPages} pages`);
        }
        this.#units += sizeBytes / this.#unitBytes;
    }
    uncharge(sizeBytes) {
        this.#units -= sizeBytes / this.#unitBytes;
    }
}
//# sourceMappingURL=modmem.js.map