import { type Kaddr } from '../lib/index.ts';
import type { Perms, Region } from './api.ts';
import { type Engine, type HostBlock } from './engine.ts';
import type { Layout } from './layout.ts';
/** Puts something back into the state it was in when this was made; may be called many times. */
export type Restore = () => void;
/** What a block is used for: names its parts. */
export interface BlockOwner {
    /** The live region that covers an address of the block. */
    regionAt(address: Kaddr): Region | undefined;
}
/** One mapping. */
export interface Block {
    readonly start: Kaddr;
    /** The first address behind it. */
    readonly end: Kaddr;
    readonly perms: Perms;
    readonly host: HostBlock;
    /** The same memory, for scalars. */
    readonly view: DataView;
    /** What every byte held that was never used. */
    readonly fill: number;
    readonly owner: BlockOwner;
}
export interface BlockUse {
    /** Default 0. */
    readonly fill?: number;
    readonly lanes?: number;
    readonly usedBytes?: number;
}
/** The x86 breakpoint instruction: what text consists of where nobody wrote any. */
export declare const INT3: number;
export declare class AddressSpace {
    #private;
    readonly layout: Layout;
    constructor(engine: Engine, layout: Layout);
    /** The block that covers an address. */
    find(address: Kaddr): Block | undefined;
    /**
     * Maps a new block.
     * @throws InputError for a range that is not whole pages, not mappable in the layout, or not free
     * @throws KernelError ENOMEM when there are too many blocks
     */
    map(start: Kaddr, sizeBytes: number, perms: Perms, owner: BlockOwner, use?: BlockUse): Block;
    unmap(block: Block): void;
    /**
     * Writes executable memory, on every vCPU. The caller has checked that the range is mapped `rx`; it may
     * run over several blocks.
     */
    pokeText(address: Kaddr, bytes: Uint8Array): void;
    /** Bytes of one block, which the caller knows to be mapped: live, not a copy. */
    bytes(start: Kaddr, length: number): Uint8Array;
    /** Bytes in use, over all blocks. */
    get usedBytes(): number;
    /** Remembers what is mapped and what the used parts hold. */
    save(): Restore;
}
