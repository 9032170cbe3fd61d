/*
 * Where things lie, after Documentation/arch/x86/x86_64/mm.rst (4-level paging, no KASLR).
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
 * From the runtime text to the end of the modules area it is less than 2 GiB: any of it reaches any
 * other by a 32-bit displacement. Simplified: the kernel keeps per-CPU units, vmlinux and modules in
 * other proportions, and module data beside module text.
 */

import { type Kaddr, kaddr } from '../lib/index.ts';

export interface AddressRange {
  readonly start: Kaddr;
  /** The first address behind it. */
  readonly end: Kaddr;
}

function range(start: bigint, end: bigint): AddressRange {
  return { start: kaddr(start), end: kaddr(end) };
}

export const DIRECT_MAP: AddressRange = range(0xffff_8880_0000_0000n, 0xffff_8881_0000_0000n);
export const PERCPU_START: Kaddr = kaddr(0xffff_8881_3bc0_0000n);
/** Bytes of one CPU's area. */
export const PERCPU_UNIT: number = 0x20_0000;
export const VMALLOC: AddressRange = range(0xffff_c900_0000_0000n, 0xffff_e900_0000_0000n);
export const KERNEL_TEXT: AddressRange = range(0xffff_ffff_8000_0000n, 0xffff_ffff_8080_0000n);
export const KERNEL_RODATA: AddressRange = range(0xffff_ffff_8080_0000n, 0xffff_ffff_80c0_0000n);
export const KERNEL_DATA: AddressRange = range(0xffff_ffff_80c0_0000n, 0xffff_ffff_8100_0000n);
export const MODULES_TEXT: AddressRange = range(0xffff_ffff_a000_0000n, 0xffff_ffff_c000_0000n);
export const MODULES_DATA: AddressRange = range(0xffff_ffff_c000_0000n, 0xffff_ffff_e000_0000n);
export const MODULES_RODATA: AddressRange = range(0xffff_ffff_e000_0000n, 0xffff_ffff_ff00_0000n);

/** Bytes of a vCPU's stack. Kernel: THREAD_SIZE. */
export const STACK_BYTES: number = 16384;
/** Bytes above the first frame, which a caller that reads past its frame may touch. Kernel: struct pt_regs lies there. */
export const STACK_HEADROOM: number = 256;

/** Whether an address is one of 48 bits, sign-extended. Any other is #GP on hardware. */
export function isCanonical(address: bigint): boolean {
  return address < 0x8000_0000_0000n || address >= 0xffff_8000_0000_0000n;
}
