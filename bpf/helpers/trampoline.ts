/*
 * Helpers that look at what a trampoline's image keeps around ctx, and tail calls, which no helper ever sees: the
 * JIT and the interpreter do them.
 *
 *   ctx - 16   the traced function's address, from v6.1 on; v5.15 has it at ctx - 8
 *   ctx -  8   how many words of arguments there are, from v6.1 on
 *   ctx        arguments, then the result
 *
 * Kernel: kernel/trace/bpf_trace.c
 */

import { BpfTrampRunCtx, TaskStruct } from '../../jit/index.ts';
import { addrAdd, Bug, Errno, type Kaddr } from '../../lib/index.ts';
import { type Helper, type HelperCall, low32 } from './helper.ts';

const wordAt = ({ world, args: [ctx] }: HelperCall, offset: number): bigint =>
  world.guest.read(ctx + BigInt(offset), 8);

const count = (call: HelperCall): bigint => wordAt(call, -8);

export const TRAMPOLINE_HELPERS: readonly Helper[] = [
  {
    id: 12,
    name: 'bpf_tail_call',
    since: 'v5.13',
    doc: 'comes back only when the slot is empty, out of range, or after 33 in a row',
    run: () => {
      throw new Bug('a tail call that was not rewritten');
    },
  },
  {
    id: 173,
    name: 'bpf_get_func_ip',
    since: 'v5.15',
    doc: "the traced function's address; read in place of the call",
    run: (call) => wordAt(call, call.world.kernel.rules.cookies ? -16 : -8),
  },
  {
    id: 174,
    name: 'bpf_get_attach_cookie',
    since: 'v6.1',
    doc: 'the cookie that the program was attached with, 0 without one',
    run: ({ world, cpu }) => {
      const task = world.kernel.machine.current(cpu);
      const runCtx = world.guest.read(addrAdd(task, TaskStruct.bpfCtx), 8);
      return world.guest.read(addrAdd(runCtx as Kaddr, BpfTrampRunCtx.bpfCookie), 8);
    },
  },
  {
    id: 183,
    name: 'bpf_get_func_arg',
    since: 'v6.1',
    doc: '0 and the word, or EINVAL for one that is not there; done in place of the call',
    run: (call) => {
      const index = low32(call.args[1]);
      if (BigInt(index) >= count(call)) return -Errno.EINVAL;
      call.world.guest.write(call.args[2], 8, wordAt(call, 8 * index));
      return 0;
    },
  },
  {
    id: 184,
    name: 'bpf_get_func_ret',
    since: 'v6.1',
    doc: '0 and the result so far, in fexit and fmod_ret programs; done in place of the call',
    run: (call) => {
      call.world.guest.write(call.args[1], 8, wordAt(call, 8 * Number(count(call))));
      return 0;
    },
  },
  {
    id: 185,
    name: 'bpf_get_func_arg_cnt',
    since: 'v6.1',
    doc: 'how many words of arguments there are; read in place of the call',
    run: count,
  },
];
