import { expect, test } from 'vitest';
import {
  type Emission,
  movPtr,
  type Revision,
  rax,
  rbx,
  rdi,
  revisions,
  rsi,
  step,
} from '../../../jit/index.ts';
import type { Kaddr } from '../../../lib/index.ts';
import { Stage, type StageOptions } from './stage.ts';

/**
 * L16: an emitter whose `je` skips the exit call as well. Enter has counted the run up even when it
 * refuses it, so exit must count it down.
 */
const skipsExitToo: Revision = {
  ...revisions['v5.15'],
  invokeProg: step('invoke_bpf_prog', ({ asm, frame, request }: Emission, { prog, keepReturn }) => {
    const skip = asm.label('skip_exec_and_exit');
    movPtr(asm, rdi, prog.prog, 'prog', 'arg1: prog');
    asm.call(request.helpers['__bpf_prog_enter'] as Kaddr, '__bpf_prog_enter');
    asm.mov(rbx, rax, 'start time, for exit');
    asm.test(rax, rax);
    asm.jccShort('e', skip, 'the bug');
    asm.lea(rdi, frame.ctx, 'arg1: ctx');
    asm.call(prog.bpfFunc, 'prog');
    if (keepReturn) asm.mov(frame.returnValue, rax);
    movPtr(asm, rdi, prog.prog, 'prog', 'arg1: prog');
    asm.mov(rsi, rbx, 'arg2: start time');
    asm.call(request.helpers['__bpf_prog_exit'] as Kaddr, '__bpf_prog_exit');
    asm.bind(skip);
  }),
};

/** A program that calls what it traces is refused once; then two tasks come along. */
async function afterOneMiss(options: StageOptions) {
  const stage = await Stage.create(options);
  const f = stage.guest.addFunction('f');
  const p = stage.guest.addProgram('P', 'fentry', { calls: f.addr });
  stage.attach(p, f);
  for (const name of ['t1', 't2', 't3']) {
    expect(stage.finish(stage.task(name, f))).toBeUndefined();
  }
  const { active, misses } = p.prog.counters(0);
  stage.close();
  return { runs: p.runs(), misses, active };
}

test('exit follows every enter: the program runs each time', async () => {
  expect(await afterOneMiss({})).toEqual({ runs: 3n, misses: 3n, active: 0 });
});

test('L16: the counter stays up, and the program never runs again', async () => {
  expect(await afterOneMiss({ emitter: skipsExitToo })).toEqual({ runs: 1n, misses: 3n, active: 3 });
});

test('L16 in the exit function, which returns at once: the same', async () => {
  expect(await afterOneMiss({ bugs: ['L16'] })).toEqual({ runs: 1n, misses: 3n, active: 3 });
});
