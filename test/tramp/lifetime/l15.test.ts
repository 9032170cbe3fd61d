import { expect, test } from 'vitest';
import { Mem, qword, rax } from '../../../jit/index.ts';
import { addrAdd, kaddr } from '../../../lib/index.ts';
import { type KernelBug, linkProg, TrampLink } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

const COOKIE = 0x77n;
/** What lies in an image's frame before anybody writes there. */
const GARBAGE = 0x5a5a_5a5a_5a5a_5a5an;

/**
 * L15: a program calls the function that it traces, is refused there, and asks for its cookie afterwards. The frame
 * of the image that refuses it is made on a stack that holds garbage.
 */
async function asksBehindRefusal(bugs: readonly KernelBug[], revision: 'v6.1' | 'v6.12') {
  const stage = await Stage.create({ bugs, revision });
  const { guest, kernel } = stage;
  const { memory } = guest.machine;
  const told = memory.allocKernelData(8, 'what it was told');
  const f = guest.addFunction('f');
  const p = guest.addProgram('P', 'fentry', {
    calls: f.addr,
    leave: (asm) => {
      asm.call(stage.helper('bpf_get_attach_cookie'), 'bpf_get_attach_cookie');
      asm.mov(qword(new Mem({ disp: Number(BigInt.asIntN(32, told)) })), rax);
    },
  });
  const tr = kernel.trampolines.get(kernel, f.key, f);
  linkProg(kernel, new TrampLink(p.prog, COOKIE), tr);

  const task = stage.task('t1', f);
  stage.sched.run(task.cpu, 1);
  const rsp = kaddr(guest.machine.cpus[0]?.regs.get('rsp') ?? 0n);
  for (let below = 8; below <= 512; below += 8) memory.writeU64(addrAdd(rsp, -below), GARBAGE);
  const fault = stage.finish(task);
  const outcome = { fault: fault?.kind, cookie: memory.readU64(told), misses: p.prog.counters(0).misses };
  stage.close();
  return outcome;
}

test.each(['v6.1', 'v6.12'] as const)('%s: the program has its own cookie back', async (revision) => {
  expect(await asksBehindRefusal([], revision)).toEqual({ fault: undefined, cookie: COOKIE, misses: 1n });
});

test.each(['v6.1', 'v6.12'] as const)('%s, L15: exit puts garbage in its place', async (revision) => {
  expect(await asksBehindRefusal(['L15'], revision)).toMatchObject({
    fault: 'general-protection',
    cookie: 0n,
  });
});
