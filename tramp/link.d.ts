import type { ProgRef } from '../jit/index.ts';
import type { BpfProg } from './prog.ts';
/**
 * What a trampoline's lists hold: a program, and the cookie that it is given there.
 *
 * From v6.1 on a program may have any number of them. Before that it has the one that is its own
 * (`BpfProg.link`), and so is in one place at most.
 *
 * Kernel: struct bpf_tramp_link (v6.1); prog->aux->tramp_hlist before
 */
export declare class TrampLink {
    readonly prog: BpfProg;
    /** What bpf_get_attach_cookie answers the program here, 64 bits. */
    readonly cookie: bigint;
    /** @param cookie default 0 */
    constructor(prog: BpfProg, cookie?: bigint);
    /** Whether it is on a trampoline's list. Kernel: !hlist_unhashed(&link->tramp_hlist) */
    get linked(): boolean;
    set linked(on: boolean);
    /** As the emitter wants it. */
    ref(): ProgRef;
}
/** A program stands for its own link. */
export declare function linkOf(what: BpfProg | TrampLink): TrampLink;
