import type { BpfProg } from './prog.ts';
/**
 * A map of programs that others end in by tail calls. While a program is in one it cannot be replaced by a
 * freplace program, and while it is replaced it cannot be put into one: a loop could come of it that nobody
 * counts.
 *
 * Kernel: BPF_MAP_TYPE_PROG_ARRAY, kernel/bpf/arraymap.c
 */
export declare class ProgArray {
    #private;
    constructor(entries: number);
    get(index: number): BpfProg | undefined;
    /**
     * Puts a program into a slot, in place of what is there.
     * @throws KernelError EBUSY while the program is replaced; InputError for a slot that there is not
     * Kernel: bpf_fd_array_map_update_elem
     */
    set(index: number, prog: BpfProg | undefined): void;
    /** Empties it. Kernel: bpf_fd_array_map_clear */
    clear(): void;
}
