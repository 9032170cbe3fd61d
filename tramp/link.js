/**
 * What a trampoline's lists hold: a program, and the cookie that it is given there.
 *
 * From v6.1 on a program may have any number of them. Before that it has the one that is its own
 * (`BpfProg.link`), and so is in one place at most.
 *
 * Kernel: struct bpf_tramp_link (v6.1); prog->aux->tramp_hlist before
 */
export class TrampLink {
    prog;
    /** What bpf_get_attach_cookie answers the program here, 64 bits. */
    cookie;
    /** @param cookie default 0 */
    constructor(prog, cookie = 0n) {
        this.prog = prog;
        this.cookie = BigInt.asUintN(64, cookie);
    }
    /** Whether it is on a trampoline's list. Kernel: !hlist_unhashed(&link->tramp_hlist) */
    get linked() {
        return this.prog.linkedBy.has(this);
    }
    set linked(on) {
        if (on)
            this.prog.linkedBy.add(this);
        else
            this.prog.linkedBy.delete(this);
    }
    /** As the emitter wants it. */
    ref() {
        return { ...this.prog.ref(), cookie: this.cookie };
    }
}
/** A program stands for its own link. */
export function linkOf(what) {
    return what instanceof TrampLink ? what : what.link;
}
//# sourceMappingURL=link.js.map