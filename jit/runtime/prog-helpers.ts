/*
 * Helpers that programs call and that look at what the image keeps around their ctx:
 *
 *   u64  bpf_get_func_ip(ctx)                       v5.15 on
 *   u64  bpf_get_func_arg_cnt(ctx)                  v6.1 on, as all that follow
 *   long bpf_get_func_arg(ctx, u32 n, u64 *value)
 *   long bpf_get_func_ret(ctx, u64 *value)          for fexit and fmod_ret programs
 *   u64  bpf_get_attach_cookie(ctx)
 *
 * The kernel's verifier writes most of them into the program in place of the call. Kernel: kernel/trace/bpf_trace.c
 */

import { Errno } from '../../lib/index.ts';
import { eax, ecx, ptr, ptrIndexed, rax, rcx, rdi, rdx, rsi } from '../x86/operand.ts';
import { current, type Func, func } from './context.ts';
import { BpfTrampRunCtx, TaskStruct } from './structs.ts';

/** The helper that makes a program's image keep the traced function's address. */
export const GET_FUNC_IP = 'bpf_get_func_ip';

/** How many argument words there are; from v6.1 on, one word below ctx. */
const ARG_COUNT = ptr(rdi, -8);

const getFuncIp = (offset: number): Func =>
  func(GET_FUNC_IP, ({ asm }) => {
    asm.mov(rax, ptr(rdi, offset), 'kept by the image');
    asm.ret();
  });

const getFuncArgCnt = func('bpf_get_func_arg_cnt', ({ asm }) => {
  asm.mov(rax, ARG_COUNT);
  asm.ret();
});

const getFuncArg = func('bpf_get_func_arg', ({ asm }) => {
  const none = asm.label('no_such_argument');
  asm.mov(ecx, rsi.as(4));
  asm.alu('cmp', rcx, ARG_COUNT);
  asm.jccShort('ae', none);
  asm.mov(rax, ptrIndexed(rdi, rcx, 8));
  asm.mov(ptr(rdx), rax);
  asm.alu('xor', eax, eax);
  asm.ret();
  asm.bind(none);
  asm.movImm(rax, -Errno.EINVAL);
  asm.ret();
});

const getFuncRet = func('bpf_get_func_ret', ({ asm }) => {
  asm.mov(rcx, ARG_COUNT);
  asm.mov(rax, ptrIndexed(rdi, rcx, 8), 'the word behind the last argument');
  asm.mov(ptr(rsi), rax);
  asm.alu('xor', eax, eax);
  asm.ret();
});

/** Kernel: bpf_get_attach_cookie_tracing */
const getAttachCookie = func('bpf_get_attach_cookie', (ctx) => {
  const { asm } = ctx;
  current(ctx);
  asm.mov(rax, ptr(rdx, TaskStruct.bpfCtx), 'run_ctx of the program that asks');
  asm.mov(rax, ptr(rax, BpfTrampRunCtx.bpfCookie));
  asm.ret();
});

/** The function's address stands one word below ctx. */
export const V5_15_HELPERS: readonly Func[] = [getFuncIp(-8)];

/** Two words below: the count is between. */
export const V6_HELPERS: readonly Func[] = [
  getFuncIp(-16),
  getFuncArgCnt,
  getFuncArg,
  getFuncRet,
  getAttachCookie,
];
