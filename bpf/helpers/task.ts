/*
 * Helpers about the task, the CPU, time and chance.
 * Kernel: kernel/bpf/helpers.c, kernel/trace/bpf_trace.c
 */

import { Errno } from '../../lib/index.ts';
import type { Kernel } from '../../tramp/index.ts';
import { type Helper, type HelperCall, le32, low32 } from './helper.ts';

/** What every task of the lab is called. */
const COMM = 'tramplab';
/** Its thread group; its threads are numbered by CPU. */
const TGID = 1000n;
/** Kernel: HZ, INITIAL_JIFFIES with it */
const NSECS_PER_JIFFY = 4_000_000n;

/** Every reading lets the clock go on, as sched_clock does in the guest. */
function readClock(kernel: Kernel): bigint {
  const now = kernel.clock;
  kernel.clock = now + 10n;
  return now;
}

const clock = ({ world }: HelperCall): bigint => readClock(world.kernel);
const currentTask = ({ world, cpu }: HelperCall): bigint => world.kernel.machine.current(cpu);

/** mov rax, gs:[offset]; ret */
const loadCurrent = ({ currentTask: offset }: { readonly currentTask: number }): number[] => [
  ...[0x65, 0x48, 0x8b, 0x04, 0x25],
  ...le32(offset),
  0xc3,
];

const CLOCK = "nanoseconds of the lab's clock, which goes on by 10 with every reading";

export const TASK_HELPERS: readonly Helper[] = [
  { id: 5, name: 'bpf_ktime_get_ns', since: 'v5.13', doc: CLOCK, run: clock },
  {
    id: 7,
    name: 'bpf_get_prandom_u32',
    since: 'v5.13',
    doc: 'numbers that follow from a seed: the same in every run',
    run: ({ world }) => world.random(),
  },
  {
    id: 8,
    name: 'bpf_get_smp_processor_id',
    since: 'v5.13',
    doc: 'the CPU; v6.12 reads it in place of the call',
    run: ({ cpu }) => cpu,
    // mov eax, gs:[offset]; ret
    code: ({ cpuNumber }) => [...[0x65, 0x8b, 0x04, 0x25], ...le32(cpuNumber), 0xc3],
  },
  {
    id: 14,
    name: 'bpf_get_current_pid_tgid',
    since: 'v5.13',
    doc: 'thread group 1000 in the upper half, thread 1000 + CPU in the lower',
    run: ({ cpu }) => (TGID << 32n) | (TGID + BigInt(cpu)),
  },
  { id: 15, name: 'bpf_get_current_uid_gid', since: 'v5.13', doc: '0: root', run: () => 0 },
  {
    id: 16,
    name: 'bpf_get_current_comm',
    since: 'v5.13',
    doc: '0; the name is `tramplab`, with zeros to the end of the buffer',
    run: ({ world, args: [to, size] }) => {
      const sizeBytes = low32(size);
      if (sizeBytes === 0) return -Errno.EINVAL;
      const text = new Uint8Array(sizeBytes);
      text.set(new TextEncoder().encode(COMM).subarray(0, sizeBytes - 1));
      world.guest.store(to, text);
      return 0;
    },
  },
  {
    id: 35,
    name: 'bpf_get_current_task',
    since: 'v5.13',
    doc: 'the address of the task; of its fields only those of docs/fidelity.md mean anything',
    run: currentTask,
    code: loadCurrent,
  },
  { id: 42, name: 'bpf_get_numa_node_id', since: 'v5.13', doc: '0: there is one node', run: () => 0 },
  {
    id: 118,
    name: 'bpf_jiffies64',
    since: 'v5.13',
    doc: "the lab's clock in steps of 4 ms",
    run: (call) => clock(call) / NSECS_PER_JIFFY,
  },
  {
    id: 125,
    name: 'bpf_ktime_get_boot_ns',
    since: 'v5.13',
    doc: `${CLOCK}; the machine never sleeps`,
    run: clock,
  },
  {
    id: 158,
    name: 'bpf_get_current_task_btf',
    since: 'v5.13',
    doc: 'as bpf_get_current_task',
    run: currentTask,
    code: loadCurrent,
  },
  { id: 160, name: 'bpf_ktime_get_coarse_ns', since: 'v5.13', doc: CLOCK, run: clock },
  {
    id: 208,
    name: 'bpf_ktime_get_tai_ns',
    since: 'v6.1',
    doc: `${CLOCK}; there are no leap seconds`,
    run: clock,
  },
];
