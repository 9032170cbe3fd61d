import { expect, test } from 'vitest';
import { createGuest, type Guest } from '../../check/index.ts';
import { linkProg, Simulation, type SimulationOptions, unlinkProg } from '../../tramp/index.ts';

interface Play {
  readonly guest: Guest;
  readonly sim: Simulation;
}

/** Two tasks call f, which sleeps; a program is attached and detached meanwhile. */
async function play(options: SimulationOptions & { readonly preemption?: boolean }): Promise<Play> {
  const guest = await createGuest({ cpus: 2, preemption: options.preemption ?? true });
  const { kernel } = guest;
  const sim = new Simulation(kernel, options);
  const f = guest.addFunction('f', { sleeps: true });
  const { prog } = guest.addProgram('P', 'fexit');
  const tr = kernel.trampolines.get(kernel, f.key, f);
  sim.host('attach P to f', () => linkProg(kernel, prog, tr));
  sim.host('detach P from f', () => unlinkProg(kernel, prog, tr));
  for (const name of ['t1', 't2']) {
    let calls = 20;
    sim.spawn(name, 0, () => (calls-- > 0 ? { fn: f.addr, args: [1n, 2n] } : undefined));
  }
  return { guest, sim };
}

async function historyOf(options: SimulationOptions & { readonly preemption?: boolean }): Promise<string> {
  const { guest, sim } = await play(options);
  expect(sim.drain()).toBe(true);
  expect(sim.fault).toBeUndefined();
  const history = sim.history();
  guest.close();
  return history;
}

test('one seed, one history; another seed, another', async () => {
  const options = { seed: 1, keep: 10_000 };
  const history = await historyOf(options);
  expect(await historyOf(options)).toBe(history);
  expect(await historyOf({ ...options, seed: 2 })).not.toBe(history);
});

test('it comes to an end, and then nothing more happens', async () => {
  const { guest, sim } = await play({ seed: 3 });
  expect(sim.drain()).toBe(true);
  const { events } = sim;
  expect(sim.step()).toBe(false);
  expect([sim.events, sim.waiting, sim.sched.tasks.length]).toEqual([events, 0, 0]);
  expect([guest.kernel.images.size, guest.kernel.grace.pendingWork]).toEqual([0, 0]);
  guest.close();
});

test('drain gives up at its limit', async () => {
  const { guest, sim } = await play({ seed: 3 });
  expect(sim.drain(10)).toBe(false);
  expect(sim.events).toBe(10);
  guest.close();
});

test('everything happens: a history has all kinds of events', async () => {
  const histories = await Promise.all([1, 2, 3, 4].map((seed) => historyOf({ seed, keep: 10_000 })));
  const all = histories.join('\n');
  for (const line of [
    /cpu[01] t[12] +is on the CPU/,
    /cpu[01] t[12] +runs \d+, to f\+0x/,
    /cpu[01] t[12] +runs \d+, to bpf_trampoline_\d+_0 \(f\)\+0x[0-9a-f]+ \[fexit\/invoke_bpf_prog/,
    /cpu[01] t[12] +runs \d+, sleeps/,
    /cpu[01] t[12] +runs \d+, returns to user mode/,
    /cpu[01] t[12] +is preempted at \S+/,
    /cpu[01] t[12] +is preempted in user mode/,
    /cpu[01] t[12] +exits/,
    /t[12] +is woken, to go on on cpu[01]/,
    /t[12] +moves from cpu[01] to cpu[01]/,
    /host +attach P to f/,
    /host +detach P from f/,
    /bpf_trampoline_\d+_0 \(f\) waits for rcu-tasks: tasks in its code/,
    /bpf_trampoline_\d+_0 \(f\) waits for percpu_ref: calls between enter and exit/,
    /bpf_trampoline_\d+_0 \(f\) waits for rcu-tasks: tasks behind its exit/,
    /bpf_trampoline_\d+_0 \(f\) waits for the workqueue/,
    /bpf_trampoline_\d+_0 \(f\) is freed/,
    /rcu-tasks +a grace period begins; waits for t[12]/,
    /rcu-tasks +waits for t[12]/,
    /rcu-tasks +it is over/,
    /rcu-tasks +a callback runs/,
    /rcu +a grace period begins; it is over/,
    /workqueue +a work item runs/,
  ]) {
    expect(all).toMatch(line);
  }
});

test('without preemption a task leaves its CPU in user mode or to sleep', async () => {
  const history = await historyOf({ seed: 1, keep: 10_000, preemption: false });
  expect(history).toContain('is preempted in user mode');
  expect(history).not.toContain('is preempted at');
});

test('the history ends with the fault, and nothing happens after it', async () => {
  const guest = await createGuest();
  const sim = new Simulation(guest.kernel, { seed: 1 });
  const f = guest.addFunction('f');
  guest.machine.patchText(f.addr, Uint8Array.of(0xcc));
  sim.spawn('t1', 0, () => ({ fn: f.addr, args: [] }));
  sim.host('never', () => expect.unreachable());
  expect(sim.drain()).toBe(false);
  expect(sim.fault).toMatchObject({ task: 't1', fault: { kind: 'int3', rip: f.addr } });
  expect(sim.history().split('\n').at(-1)).toMatch(/FAULT of t1: .*f\+0x0/);
  expect(sim.step()).toBe(false);
  guest.close();
});

test('CPUs run between the steps of a text poke', async () => {
  const { guest, sim } = await play({ seed: 5, keep: 100_000 });
  const { kernel } = guest;
  let during = 0;
  const sync = kernel.sync;
  kernel.sync = () => {
    const before = sim.events;
    sync();
    during += sim.events - before;
  };
  expect(sim.drain()).toBe(true);
  expect(during).toBeGreaterThan(0);
  guest.close();
});

test('what is kept is the last events', async () => {
  const all = (await historyOf({ seed: 6, keep: 10_000 })).split('\n');
  const { guest, sim } = await play({ seed: 6, keep: 50 });
  sim.drain();
  expect(sim.history().split('\n')).toEqual(all.slice(-50));
  expect(sim.history(3).split('\n')).toEqual(all.slice(-3));
  guest.close();
});
