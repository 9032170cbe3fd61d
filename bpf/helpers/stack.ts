/*
 * The return addresses above a program. It and the image have frame pointers; a traced function was called by its
 * own caller just before the image was, and has no frame yet; what is above is followed by frame pointers as long as
 * it has them.
 *
 *   program's frame ── rbp ──▶ image's frame
 *                              | caller's rbp | f+5 | return address of f | ...
 *
 * Simplified: the kernel unwinds its own code by ORC tables.
 *
 * Kernel: kernel/bpf/stackmap.c, arch/x86/kernel/unwind_orc.c
 */

import { Errno, kaddr } from '../../lib/index.ts';
import { MemoryFault } from '../interp/memory.ts';
import { type Helper, type HelperCall, low32 } from './helper.ts';

const SKIP_FIELD = 0xffn;
const USER_STACK = 0x100n;
const USER_BUILD_ID = 0x800n;
/** Kernel: sysctl_perf_event_max_stack */
const MAX_FRAMES = 127;
const SITE_BYTES = 5;

/** Return addresses, innermost first. */
export function* returnAddresses({ world, frame }: HelperCall): Generator<bigint> {
  const { kernel, guest } = world;
  const isText = (address: bigint): boolean => kernel.kallsyms.lookup(kaddr(address)) !== undefined;
  yield frame.returnTo;
  let { rbp } = frame;
  try {
    for (let left = MAX_FRAMES; left > 0; left--) {
      const returnTo = guest.read(rbp + 8n, 8);
      if (!isText(returnTo)) return;
      yield returnTo;
      const hit = kernel.kallsyms.lookup(kaddr(returnTo));
      // Behind its site a traced function has not touched the stack.
      if (hit !== undefined && hit.ksym.kind !== 'bpf' && hit.offset <= SITE_BYTES + 4) {
        const caller = guest.read(rbp + 16n, 8);
        if (!isText(caller)) return;
        yield caller;
      }
      const above = guest.read(rbp, 8);
      if (above <= rbp) return;
      rbp = above;
    }
  } catch (error) {
    if (!(error instanceof MemoryFault)) throw error;
  }
}

/** Kernel: __bpf_get_stack */
function getStack(call: HelperCall): number {
  const { world, args } = call;
  const [, to, size, flags] = args;
  const sizeBytes = low32(size);
  const bad = (flags & ~(SKIP_FIELD | USER_STACK | USER_BUILD_ID)) !== 0n || sizeBytes % 8 !== 0;
  world.guest.store(to, new Uint8Array(sizeBytes));
  if (bad) return -Errno.EINVAL;
  // No call here comes from user space.
  if ((flags & USER_STACK) !== 0n) return (flags & USER_BUILD_ID) === 0n ? 0 : -Errno.EINVAL;
  const addresses = [...returnAddresses(call)].slice(
    Number(flags & SKIP_FIELD),
    Number(flags & SKIP_FIELD) + sizeBytes / 8,
  );
  for (const [i, address] of addresses.entries()) world.guest.write(to + BigInt(8 * i), 8, address);
  return 8 * addresses.length;
}

export const STACK_HELPERS: readonly Helper[] = [
  {
    id: 67,
    name: 'bpf_get_stack',
    since: 'v5.13',
    doc: 'bytes of return addresses, of the program, its image, the traced function, its caller, and on while there are frame pointers; 0 for the stack of the user',
    run: getStack,
  },
];
