import { type Kaddr } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import type { Kernel } from './kernel.ts';
import type { BpfProg } from './prog.ts';
/** A function of the struct, and the program that it is. */
export interface StructOpsMember {
    readonly name: string;
    readonly model: FuncModel;
    /** Of type `struct_ops`. */
    readonly prog: BpfProg;
    /** The kernel's own function of that type, which an image names as its original (v6.12). Default none. */
    readonly stub?: Kaddr;
}
/** A member that is in place. */
export interface StructOpsImage {
    readonly name: string;
    readonly image: Kaddr;
    /** Code, bytes. */
    readonly length: number;
    /** What the struct holds: where a caller goes. */
    readonly pointer: Kaddr;
}
/**
 * A struct with its functions in place.
 * @throws InputError without members, twice the same, programs of another type, or in a revision that is not
 *   modelled; KernelError EFAULT no room in the page (v6.1), E2BIG nor in eight (v6.12), what the emitter refuses
 */
export declare class StructOps {
    #private;
    readonly members: readonly StructOpsImage[];
    /** @param type of the struct, which names the members' symbols. Kernel: bpf_struct_ops_map_update_elem */
    constructor(kernel: Kernel, type: string, members: readonly StructOpsMember[]);
    /** Images' pages. */
    get pages(): number;
    /** What a member of the struct holds. @throws InputError when there is no such member */
    pointer(name: string): Kaddr;
    /** Takes it away; its memory goes when nobody can be in a member. Kernel: bpf_struct_ops_map_free */
    unregister(): void;
}
