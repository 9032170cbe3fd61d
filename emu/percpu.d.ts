import { type Kaddr } from '../lib/index.ts';
import type { AddressSpace, BlockOwner, Restore } from './address-space.ts';
import type { PerCpu, PerCpuVars, Region } from './api.ts';
export declare class PerCpuAreas implements PerCpu, BlockOwner {
    #private;
    readonly vars: PerCpuVars;
    constructor(space: AddressSpace, nrCpus: number);
    alloc(sizeBytes: number, align: number): number;
    free(offset: number): void;
    base(cpu: number): Kaddr;
    address(offset: number, cpu: number): Kaddr;
    regionAt(address: Kaddr): Region;
    save(): Restore;
}
