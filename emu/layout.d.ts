import { type Kaddr } from '../lib/index.ts';
export interface AddressRange {
    readonly start: Kaddr;
    /** The first address behind it. */
    readonly end: Kaddr;
}
/** The layouts there are. */
export type LayoutName = 'kernel' | 'user';
/** Where the areas of a machine lie. */
export interface Layout {
    readonly name: LayoutName;
    /** Where anything can be mapped at all. */
    readonly mappable: readonly AddressRange[];
    /** What to tell who maps elsewhere. */
    readonly notMappable: string;
    readonly directMap: AddressRange;
    /** GS_BASE of CPU 0; the other CPUs' areas follow, PERCPU_UNIT apart. */
    readonly percpuStart: Kaddr;
    readonly vmalloc: AddressRange;
    readonly kernelText: AddressRange;
    readonly kernelRodata: AddressRange;
    readonly kernelData: AddressRange;
    readonly modulesText: AddressRange;
    readonly modulesData: AddressRange;
    readonly modulesRodata: AddressRange;
}
/** Bytes of one CPU's area. */
export declare const PERCPU_UNIT: number;
/** Bytes of a vCPU's stack. Kernel: THREAD_SIZE. */
export declare const STACK_BYTES: number;
/** Bytes above the first frame, which a caller that reads past its frame may touch. Kernel: struct pt_regs lies there. */
export declare const STACK_HEADROOM: number;
export declare const KERNEL_LAYOUT: Layout;
export declare const USER_LAYOUT: Layout;
/** Whether an address is one of 48 bits, sign-extended. Any other is #GP on hardware. */
export declare function isCanonical(address: bigint): boolean;
