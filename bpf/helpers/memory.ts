/*
 * Helpers that read memory of others. What cannot be read leaves zeros.
 * Kernel: kernel/trace/bpf_trace.c, mm/maccess.c, kernel/bpf/helpers.c
 */

import { Errno } from '../../lib/index.ts';
import { MemoryFault } from '../interp/memory.ts';
import { type Helper, type HelperCall, low32 } from './helper.ts';

/** Whose memory it must be; `any`: whichever the address is of. */
type Space = 'kernel' | 'user' | 'any';

const allowed = ({ world: { guest } }: HelperCall, space: Space, address: bigint): boolean =>
  space === 'any' || guest.isUser(address) === (space === 'user');

/** What `work` gives, or EFAULT and a destination of zeros when it meets an address where nothing is. */
function orZeros(call: HelperCall, space: Space, work: (from: bigint, sizeBytes: number) => number): number {
  const { world, args } = call;
  const [to, size, from] = args;
  const sizeBytes = low32(size);
  if (sizeBytes === 0) return 0;
  if (!allowed(call, space, from)) {
    world.guest.store(to, new Uint8Array(sizeBytes));
    return -Errno.EFAULT;
  }
  try {
    return work(from, sizeBytes);
  } catch (error) {
    if (!(error instanceof MemoryFault)) throw error;
    world.guest.store(to, new Uint8Array(sizeBytes));
    return -Errno.EFAULT;
  }
}

const copy =
  (space: Space) =>
  (call: HelperCall): number =>
    orZeros(call, space, (from, sizeBytes) => {
      const { guest } = call.world;
      const bytes = guest.copy(from, sizeBytes);
      guest.store(call.args[0], bytes);
      return 0;
    });

/** Kernel: strncpy_from_kernel_nofault, strncpy_from_user_nofault */
const copyText =
  (space: Space) =>
  (call: HelperCall): number =>
    orZeros(call, space, (from, sizeBytes) => {
      const { guest } = call.world;
      const text = guest.text(from, sizeBytes);
      const cut = text.subarray(0, sizeBytes - 1);
      guest.store(call.args[0], Uint8Array.of(...cut, 0));
      return cut.length + 1;
    });

export const MEMORY_HELPERS: readonly Helper[] = [
  {
    id: 4,
    name: 'bpf_probe_read',
    since: 'v5.13',
    doc: '0, or EFAULT and zeros; memory of the kernel or of the user, by the address',
    run: copy('any'),
  },
  {
    id: 45,
    name: 'bpf_probe_read_str',
    since: 'v5.13',
    doc: 'as bpf_probe_read_kernel_str, of the kernel or of the user, by the address',
    run: copyText('any'),
  },
  {
    id: 112,
    name: 'bpf_probe_read_user',
    since: 'v5.13',
    doc: '0, or EFAULT and zeros; user memory is what was mapped below the kernel',
    run: copy('user'),
  },
  {
    id: 113,
    name: 'bpf_probe_read_kernel',
    since: 'v5.13',
    doc: '0, or EFAULT and zeros',
    run: copy('kernel'),
  },
  {
    id: 114,
    name: 'bpf_probe_read_user_str',
    since: 'v5.13',
    doc: 'as bpf_probe_read_kernel_str, of the user',
    run: copyText('user'),
  },
  {
    id: 115,
    name: 'bpf_probe_read_kernel_str',
    since: 'v5.13',
    doc: 'bytes written, the 0 included; cut text ends with 0, too. EFAULT and zeros when a byte is not there',
    run: copyText('kernel'),
  },
  {
    id: 148,
    name: 'bpf_copy_from_user',
    since: 'v5.13',
    doc: '0, or EFAULT and zeros. Nothing sleeps here: what is not mapped never comes',
    run: copy('user'),
  },
];
