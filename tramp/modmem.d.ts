/**
 * Executable memory charged to BPF: by the page before v6.1, by the byte from then on.
 * Kernel: bpf_jit_charge_modmem, kernel/bpf/core.c
 */
export declare class ModmemCharge {
    #private;
    readonly limitPages: number;
    /** @param unitBytes what one unit of charge stands for; default a page */
    constructor(limitPages: number, unitBytes?: number);
    /** What is charged, in the revision's units. */
    get units(): number;
    get bytes(): number;
    /** The same in pages; not a whole number where images share a page. */
    get pages(): number;
    /** @throws KernelError EPERM over the limit */
    charge(sizeBytes: number): void;
    uncharge(sizeBytes: number): void;
}
