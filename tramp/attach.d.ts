import type { Kernel } from './kernel.ts';
import type { TrampLink } from './link.ts';
import type { BpfProg } from './prog.ts';
import { type AttachTarget, type Trampoline } from './trampoline.ts';
/**
 * Attaches a program, or a link of one, to the function of a key. On error everything is as before.
 * @throws KernelError what `TrampolineTable.get` or `linkProg` met
 *
 * Kernel: bpf_tracing_prog_attach
 */
export declare function attachProg(kernel: Kernel, what: BpfProg | TrampLink, key: bigint, target: AttachTarget): Trampoline;
/**
 * Detaches it and lets go of the trampoline, be the detaching a success or not.
 * @throws KernelError what `unlinkProg` met
 *
 * Kernel: bpf_tracing_link_release
 */
export declare function detachProg(kernel: Kernel, what: BpfProg | TrampLink, tr: Trampoline): void;
