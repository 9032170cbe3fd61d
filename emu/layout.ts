/*
 * Where things lie. Two layouts of the same areas:
 *
 *   kernel: after Documentation/arch/x86/x86_64/mm.rst (4-level paging, no KASLR)
 *
 *   0000000000001000  ─┐ free for Machine.memory.map(): images linked at user addresses
 *   00007fffffffffff  ─┘
 *   ffff888000000000  ── direct map: kmalloc
 *   ffff88813bc00000  ── per-CPU areas, one PERCPU_UNIT each; GS_BASE of CPU n is n units in
 *   ffffc90000000000  ── vmalloc, stacks among it; every area between guard pages
 *   ffffffff80000000  ── the lab's own runtime text; its first page is the exit page
 *   ffffffff80800000  ── the lab's own read-only data
 *   ffffffff80c00000  ── the lab's own data
 *   ffffffff81000000  ── vmlinux: free for map(), so that an executable linked there can be loaded
 *   ffffffffa0000000  ── modules: text and images
 *   ffffffffc0000000  ── modules: data
 *   ffffffffe0000000  ── modules: read-only data
 *   ffffffffff000000  ── end of the modules area
 *
 *   user: for engines that run guests as a process, which has no kernel addresses
 *
 *   0000000000010000  ── free for map()
 *   0000000040000000  ── the lab's own runtime text, read-only data, data, as above
 *   0000000041000000  ── free for map()
 *   0000000050000000  ── modules: text and images
 *   0000000060000000  ── modules: data
 *   0000000070000000  ── modules: read-only data
 *   000000007f000000  ── end of the modules area
 *   0000088000000000  ── direct map      ─┐
 *   000008813bc00000  ── per-CPU areas    ├ the kernel's addresses without their upper 17 bits
 *   0000490000000000  ── vmalloc         ─┘
 *   00007d0000000000  ── end: the engine's own
 *
 * In both, from the runtime text to the end of the modules area it is less than 2 GiB: any of it reaches
 * any other by a 32-bit displacement, and fits a sign-extended 32-bit immediate, as code compiled with
 * -mcmodel=kernel expects. The rest fits none. Simplified: the kernel keeps per-CPU units, vmlinux and
 * modules in other proportions, and module data beside module text.
 */

import { type Kaddr, kaddr } from '../lib/index.ts';

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
export const PERCPU_UNIT: number = 0x20_0000;
/** Bytes of a vCPU's stack. Kernel: THREAD_SIZE. */
export const STACK_BYTES: number = 16384;
/** Bytes above the first frame, which a caller that reads past its frame may touch. Kernel: struct pt_regs lies there. */
export const STACK_HEADROOM: number = 256;

function range(start: bigint, end: bigint): AddressRange {
  return { start: kaddr(start), end: kaddr(end) };
}

export const KERNEL_LAYOUT: Layout = {
  name: 'kernel',
  mappable: [
    range(0n, 0x8000_0000_0000n),
    // The last page is never mapped: error pointers point there. Kernel: IS_ERR_VALUE.
    range(0xffff_8000_0000_0000n, 0xffff_ffff_ffff_f000n),
  ],
  notMappable: 'not a range of canonical addresses',
  directMap: range(0xffff_8880_0000_0000n, 0xffff_8881_0000_0000n),
  percpuStart: kaddr(0xffff_8881_3bc0_0000n),
  vmalloc: range(0xffff_c900_0000_0000n, 0xffff_e900_0000_0000n),
  kernelText: range(0xffff_ffff_8000_0000n, 0xffff_ffff_8080_0000n),
  kernelRodata: range(0xffff_ffff_8080_0000n, 0xffff_ffff_80c0_0000n),
  kernelData: range(0xffff_ffff_80c0_0000n, 0xffff_ffff_8100_0000n),
  modulesText: range(0xffff_ffff_a000_0000n, 0xffff_ffff_c000_0000n),
  modulesData: range(0xffff_ffff_c000_0000n, 0xffff_ffff_e000_0000n),
  modulesRodata: range(0xffff_ffff_e000_0000n, 0xffff_ffff_ff00_0000n),
};

export const USER_LAYOUT: Layout = {
  name: 'user',
  // Below, Linux lets only root map (vm.mmap_min_addr).
  mappable: [range(0x1_0000n, 0x7d00_0000_0000n)],
  notMappable:
    'in the layout `user` there are only the addresses 0x10000 to 0x7d0000000000, none of the kernel; ' +
    'link it there, or take the engine unicorn',
  directMap: range(0x0880_0000_0000n, 0x0881_0000_0000n),
  percpuStart: kaddr(0x0881_3bc0_0000n),
  vmalloc: range(0x4900_0000_0000n, 0x6900_0000_0000n),
  kernelText: range(0x4000_0000n, 0x4080_0000n),
  kernelRodata: range(0x4080_0000n, 0x40c0_0000n),
  kernelData: range(0x40c0_0000n, 0x4100_0000n),
  modulesText: range(0x5000_0000n, 0x6000_0000n),
  modulesData: range(0x6000_0000n, 0x7000_0000n),
  modulesRodata: range(0x7000_0000n, 0x7f00_0000n),
};

/** Whether an address is one of 48 bits, sign-extended. Any other is #GP on hardware. */
export function isCanonical(address: bigint): boolean {
  return address < 0x8000_0000_0000n || address >= 0xffff_8000_0000_0000n;
}
