import { type Kaddr } from '../lib/index.ts';
import type { AddressSpace, BlockOwner, Restore } from './address-space.ts';
import type { Region } from './api.ts';
export declare class Slab implements BlockOwner {
    #private;
    constructor(space: AddressSpace);
    /** @throws InputError for a bad size or alignment, KernelError ENOMEM */
    alloc(sizeBytes: number, name: string, align: number): Kaddr;
    /** @throws InputError when no live object starts there */
    free(address: Kaddr): void;
    regionAt(address: Kaddr): Region | undefined;
    /** Whether an address lies in the direct map's part for kmalloc. */
    contains(address: Kaddr): boolean;
    /** Whether the two ranges have an address in common. */
    overlaps(start: Kaddr, end: bigint): boolean;
    save(): Restore;
}
