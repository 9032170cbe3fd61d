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
import { kaddr } from '../lib/index.js';
/** Bytes of one CPU's area. */
export const PERCPU_UNIT = 0x20_0000;
/** Bytes of a vCPU's stack. Kernel: THREAD_SIZE. */
export const STACK_BYTES = 16384;
/** Bytes above the first frame, which a caller that reads past its frame may touch. Kernel: struct pt_regs lies there. */
export const STACK_HEADROOM = 256;
function range(start, end) {
    return { start: kaddr(start), end: kaddr(end) };
}
export const KERNEL_LAYOUT = {
    name: 'kernel',
    mappable: [
        range(0n, 0x800000000000n),
        // The last page is never mapped: error pointers point there. Kernel: IS_ERR_VALUE.
        range(0xffff800000000000n, 0xfffffffffffff000n),
    ],
    notMappable: 'not a range of canonical addresses',
    directMap: range(0xffff888000000000n, 0xffff888100000000n),
    percpuStart: kaddr(0xffff88813bc00000n),
    vmalloc: range(0xffffc90000000000n, 0xffffe90000000000n),
    kernelText: range(0xffffffff80000000n, 0xffffffff80800000n),
    kernelRodata: range(0xffffffff80800000n, 0xffffffff80c00000n),
    kernelData: range(0xffffffff80c00000n, 0xffffffff81000000n),
    modulesText: range(0xffffffffa0000000n, 0xffffffffc0000000n),
    modulesData: range(0xffffffffc0000000n, 0xffffffffe0000000n),
    modulesRodata: range(0xffffffffe0000000n, 0xffffffffff000000n),
};
export const USER_LAYOUT = {
    name: 'user',
    // Below, Linux lets only root map (vm.mmap_min_addr).
    mappable: [range(0x10000n, 0x7d0000000000n)],
    notMappable: 'in the layout `user` there are only the addresses 0x10000 to 0x7d0000000000, none of the kernel; ' +
        'link it there, or take the engine unicorn',
    directMap: range(0x088000000000n, 0x088100000000n),
    percpuStart: kaddr(0x08813bc00000n),
    vmalloc: range(0x490000000000n, 0x690000000000n),
    kernelText: range(0x40000000n, 0x40800000n),
    kernelRodata: range(0x40800000n, 0x40c00000n),
    kernelData: range(0x40c00000n, 0x41000000n),
    modulesText: range(0x50000000n, 0x60000000n),
    modulesData: range(0x60000000n, 0x70000000n),
    modulesRodata: range(0x70000000n, 0x7f000000n),
};
/** Whether an address is one of 48 bits, sign-extended. Any other is #GP on hardware. */
export function isCanonical(address) {
    return address < 0x800000000000n || address >= 0xffff800000000000n;
}
//# sourceMappingURL=layout.js.map