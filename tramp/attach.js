/*
 * What a link of a tracing program does with the table: it holds one reference to the trampoline for as
 * long as its program is attached. Kernel: kernel/bpf/syscall.c
 */
import { linkProg, unlinkProg } from './trampoline.js';
/**
 * Attaches a program, or a link of one, to the function of a key. On error everything is as before.
 * @throws KernelError what `TrampolineTable.get` or `linkProg` met
 *
 * Kernel: bpf_tracing_prog_attach
 */
export function attachProg(kernel, what, key, target) {
    const tr = kernel.trampolines.get(kernel, key, target);
    try {
        linkProg(kernel, what, tr);
    }
    catch (error) {
        if (!kernel.bugs.has('reference-kept'))
            kernel.trampolines.put(kernel, tr);
        throw error;
    }
    return tr;
}
/**
 * Detaches it and lets go of the trampoline, be the detaching a success or not.
 * @throws KernelError what `unlinkProg` met
 *
 * Kernel: bpf_tracing_link_release
 */
export function detachProg(kernel, what, tr) {
    try {
        unlinkProg(kernel, what, tr);
    }
    finally {
        if (!kernel.bugs.has('reference-kept-detach'))
            kernel.trampolines.put(kernel, tr);
    }
}
//# sourceMappingURL=attach.js.map