import { type Kaddr } from '../lib/index.ts';
import { type AddressSpace, type BlockOwner, type Restore } from './address-space.ts';
import type { Perms, Region } from './api.ts';
import type { AddressRange } from './layout.ts';
/** What freed data holds, as SLUB's POISON_FREE. As a pointer it is not canonical: using it is #GP. */
export declare const POISON_FREE: number;
export declare class PageArea implements BlockOwner {
    #private;
    /**
     * @param op the allocating function, for errors
     * @param owner who names what is in the pages; default the area itself
     */
    constructor(space: AddressSpace, range: AddressRange, perms: Perms, op: string, owner?: BlockOwner);
    /**
     * Takes pages: zeroed, or int3 for text.
     * @throws InputError for a bad size or alignment, KernelError ENOMEM when the area is full
     */
    alloc(sizeBytes: number, name: string, align?: number): Kaddr;
    /**
     * Gives pages back. They are filled with int3 (data: poison) and keep their name.
     * @throws InputError when no live allocation starts there
     */
    free(address: Kaddr): void;
    /** Whether an address lies in the area, mapped or not. */
    contains(address: Kaddr): boolean;
    /** Whether the two ranges have an address in common. */
    overlaps(start: Kaddr, end: bigint): boolean;
    regionAt(address: Kaddr): Region | undefined;
    /** What used to cover an address that nothing covers now. */
    freedAt(address: Kaddr): Region | undefined;
    save(): Restore;
}
