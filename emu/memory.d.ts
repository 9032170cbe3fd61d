import { type Kaddr } from '../lib/index.ts';
import { AddressSpace, type Restore } from './address-space.ts';
import type { GuestMemory, Perms, Region } from './api.ts';
import { type Engine } from './engine.ts';
import type { Layout } from './layout.ts';
import { PerCpuAreas } from './percpu.ts';
export declare class Memory implements GuestMemory {
    #private;
    readonly space: AddressSpace;
    readonly percpu: PerCpuAreas;
    constructor(engine: Engine, nrCpus: number, layout: Layout);
    map(address: Kaddr, sizeBytes: number, perms: Perms, name: string): Region;
    unmap(region: Region): void;
    allocText(sizeBytes: number, name: string, options?: {
        align?: number;
    }): Kaddr;
    freeText(address: Kaddr): void;
    allocData(sizeBytes: number, name: string, options?: {
        align?: number;
    }): Kaddr;
    allocRodata(sizeBytes: number, name: string, options?: {
        align?: number;
    }): Kaddr;
    freeData(address: Kaddr): void;
    allocKernelText(sizeBytes: number, name: string): Kaddr;
    allocKernelData(sizeBytes: number, name: string, perms?: 'rw' | 'r'): Kaddr;
    kmalloc(sizeBytes: number, name?: string, align?: number): Kaddr;
    kfree(address: Kaddr): void;
    vmalloc(sizeBytes: number, name?: string): Kaddr;
    vfree(address: Kaddr): void;
    regionAt(address: Kaddr): Region | undefined;
    /** The freed text that used to be at an address where no text is now. */
    freedTextAt(address: Kaddr): Region | undefined;
    /** The freed data that used to be at an address where nothing is now; the last one that was freed. */
    freedDataAt(address: Kaddr): Region | undefined;
    /** The vmalloc area (a stack, mostly) whose guard page covers an address. */
    guardedBy(address: Kaddr): Region | undefined;
    readU8(address: Kaddr): number;
    readU16(address: Kaddr): number;
    readU32(address: Kaddr): number;
    readU64(address: Kaddr): bigint;
    writeU8(address: Kaddr, value: number): void;
    writeU16(address: Kaddr, value: number): void;
    writeU32(address: Kaddr, value: number): void;
    writeU64(address: Kaddr, value: bigint): void;
    bytes(address: Kaddr, length: number): Uint8Array;
    write(address: Kaddr, bytes: Uint8Array): void;
    /** @throws InputError as Machine.patchText */
    patchText(address: Kaddr, bytes: Uint8Array): void;
    save(): Restore;
}
