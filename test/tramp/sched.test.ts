import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createGuest, type Guest, type GuestFunction } from '../../check/index.ts';
import { linkProg, RCU_FLAVOURS, Scheduler, type Task } from '../../tramp/index.ts';

let guest: Guest;
let sched: Scheduler;
let f: GuestFunction;

beforeEach(async () => {
  guest = await createGuest({ cpus: 2 });
  sched = new Scheduler(guest.kernel);
  f = guest.addFunction('f', { sleeps: true });
});
afterEach(() => guest.close());

/** A task on CPU 0 that makes one call of f. */
function spawn(name: string): Task {
  const calls = [{ fn: f.addr, args: [1n, 2n] }];
  return sched.spawn(name, 0, () => calls.shift());
}

test('a task calls, sleeps, is woken, moves, returns and is gone', () => {
  const task = spawn('t');
  sched.dispatch(task);
  expect(sched.run(0, 1000)).toMatchObject({ what: 'slept', task });
  expect([task.onRq, task.voluntarySwitches, sched.asleep]).toEqual([false, 1, [task]]);
  expect(sched.migrate(task, 1)).toBe(true);
  sched.wake(task);
  expect([sched.runnable(0), sched.runnable(1)]).toEqual([[], [task]]);
  sched.dispatch(task);
  expect(sched.run(1, 1000)).toMatchObject({ what: 'returned', task });
  expect(task.results).toEqual([3n]);
  expect(sched.run(1, 1000)).toEqual({ what: 'gone', task });
  expect(sched.tasks).toEqual([]);
  // Its struct is freed; what it held is nothing.
  expect([task.rcuReadLockNesting, task.trcReaderNesting, task.migrationDisabled]).toEqual([0, 0, 0]);
});

test('a CPU without a task does nothing', () => {
  expect(sched.run(1, 1000)).toEqual({ what: 'idle' });
  expect(sched.preemptible(1)).toBe(false);
});

describe('the current task of a CPU', () => {
  const current = () => guest.machine.current(0);

  test('is its own initial task again once a task has left it', () => {
    const initial = current();
    const task = spawn('t');
    sched.dispatch(task);
    expect(current()).toBe(task.struct);
    sched.run(0, 1);
    sched.preempt(0);
    expect(current()).toBe(initial);
    sched.dispatch(task);
    expect(sched.run(0, 1000).what).toBe('slept');
    expect(current()).toBe(initial);
    sched.wake(task);
    sched.dispatch(task);
    sched.run(0, 1000);
    // between two calls it is still there
    expect(current()).toBe(task.struct);
    expect(sched.run(0, 1000).what).toBe('gone');
    expect(current()).toBe(initial);
  });

  test('is each CPU’s own', () => {
    const initial = [0, 1].map((cpu) => guest.machine.current(cpu));
    expect(initial[0]).not.toBe(initial[1]);
    const task = spawn('t');
    sched.migrate(task, 1);
    sched.dispatch(task);
    expect([0, 1].map((cpu) => guest.machine.current(cpu))).toEqual([initial[0], task.struct]);
    sched.run(1, 1);
    sched.preempt(1);
    expect([0, 1].map((cpu) => guest.machine.current(cpu))).toEqual(initial);
  });
});

test('preemption is no voluntary switch: RCU-tasks waits for a preempted task, and not for one that sleeps', () => {
  const { grace } = guest.kernel;
  const task = spawn('t');
  sched.dispatch(task);
  sched.run(0, 1);
  let over = false;
  grace.callRcuTasks(() => {
    over = true;
  });
  // on the CPU when the grace period starts, off it ever after, also after it was there once more
  grace.tick('rcu-tasks');
  for (let again = 0; again < 2; again++) {
    sched.preempt(0);
    expect(task.voluntarySwitches).toBe(0);
    guest.kernel.settle();
    expect([over, grace.flavours['rcu-tasks'].holdouts]).toEqual([false, [task.id]]);
    sched.dispatch(task);
    sched.run(0, 1);
  }
  expect(sched.run(0, 1000).what).toBe('slept');
  guest.kernel.settle();
  expect([over, task.voluntarySwitches]).toEqual([true, 1]);
});

describe('a call of the library that dies', () => {
  test.each([
    { sleepable: false, flavour: 'rcu' },
    { sleepable: true, flavour: 'rcu-tasks-trace' },
  ] as const)('inside a program (sleepable: $sleepable) holds up $flavour until it is killed', (sort) => {
    const { kernel, machine } = guest;
    const { prog } = guest.addProgram('p', 'fentry', { sleepable: sort.sleepable });
    linkProg(kernel, prog, kernel.trampolines.get(kernel, f.key, f));
    const cpu = machine.cpus[0];
    cpu?.begin(f.addr, [1n, 2n]);
    expect(cpu?.run({ stopAt: prog.bpfFunc }).reason).toBe('stop');
    cpu?.abort();
    const ended: string[] = [];
    for (const name of RCU_FLAVOURS) kernel.grace.flavours[name].call(() => ended.push(name));
    kernel.settle();
    expect([...RCU_FLAVOURS].filter((name) => !ended.includes(name))).toEqual([sort.flavour]);
    kernel.killCurrent(0);
    kernel.settle();
    expect([...ended].sort()).toEqual([...RCU_FLAVOURS].sort());
  });
});

test('one that sleeps inside rcu_read_lock is warned about', () => {
  const { prog } = guest.addProgram('p', 'fentry', { sleeps: true });
  linkProg(guest.kernel, prog, guest.kernel.trampolines.get(guest.kernel, f.key, f));
  sched.dispatch(spawn('t'));
  expect(sched.run(0, 1000).what).toBe('slept');
  expect(guest.kernel.warnings).toEqual(['schedule: t sleeps inside rcu_read_lock']);
});

describe('what a scheduler never does', () => {
  test('two tasks on one CPU', () => {
    const [one, two] = [spawn('one'), spawn('two')];
    sched.dispatch(one);
    expect(() => sched.dispatch(two)).toThrow('CPU 0 is busy');
  });

  test('a task that sleeps on a CPU', () => {
    const task = spawn('t');
    sched.dispatch(task);
    sched.run(0, 1000);
    expect(() => sched.dispatch(task)).toThrow('t cannot be dispatched');
  });

  test('preempt a CPU that has no task', () => {
    expect(() => sched.preempt(0)).toThrow('CPU 0 has no task to preempt');
  });

  test('wake a task that is awake', () => {
    expect(() => sched.wake(spawn('t'))).toThrow('t is awake');
  });

  test('move a task that is on a CPU', () => {
    const task = spawn('t');
    sched.dispatch(task);
    expect(() => sched.migrate(task, 1)).toThrow('t is on a CPU');
  });

  test('use a CPU that is not there', () => {
    expect(() => sched.spawn('t', 2, () => undefined)).toThrow('no CPU 2');
  });
});
