import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createGuest, type Guest, type GuestFunction } from '../../check/index.ts';
import { hex16 } from '../../lib/index.ts';
import {
  formatReport,
  introspect,
  linkProg,
  reportToJson,
  Scheduler,
  TrampLink,
  unlinkProg,
} from '../../tramp/index.ts';

let guest: Guest;
let f: GuestFunction;
let sched: Scheduler;

beforeEach(async () => {
  guest = await createGuest({ cpus: 2 });
  sched = new Scheduler(guest.kernel);
  f = guest.addFunction('f', { sleeps: true });
});
afterEach(() => guest.close());

const get = (fn: GuestFunction) => guest.kernel.trampolines.get(guest.kernel, fn.key, fn);
const report = () => introspect(guest.kernel);
/** Starts a call of f on a CPU and runs it until it sleeps, or for a number of instructions. */
const start = (name: string, cpu: number, steps = 100_000) => {
  let called = false;
  const task = sched.spawn(name, cpu, () => {
    if (called) return undefined;
    called = true;
    return { fn: f.addr, args: [1n, 2n] };
  });
  sched.dispatch(task);
  sched.run(cpu, steps);
  return task;
};

test('an empty kernel has its own symbols and nothing else', async () => {
  const bare = await createGuest();
  const { ksyms, ...rest } = introspect(bare.kernel);
  expect(rest).toEqual({
    trampolines: [],
    programs: [],
    images: [],
    modules: [],
    modmemPages: 0,
    modmemBytes: 0,
    warnings: [],
  });
  expect(ksyms.map(({ name }) => name)).toContain('__bpf_prog_enter');
  expect(ksyms.every(({ kind, module }) => kind === 'kernel' && module === null)).toBe(true);
  bare.close();
});

test('what is attached, by name', () => {
  const tr = get(f);
  const [a, b, c] = [
    guest.addProgram('a', 'fentry').prog,
    guest.addProgram('b', 'fexit', { sleepable: true }).prog,
    guest.addProgram('c', 'fmod_ret').prog,
  ];
  for (const prog of [a, b, c]) linkProg(guest.kernel, prog, tr);
  guest.kernel.settle();
  expect(report().trampolines).toEqual([
    {
      key: f.key,
      function: 'f',
      references: 1,
      progs: { fentry: ['a'], fmod_ret: ['c'], fexit: ['b'] },
      cookies: { fentry: [0n], fmod_ret: [0n], fexit: [0n] },
      flags: 0,
      extension: null,
      image: `bpf_trampoline_${f.key}_2`,
      selector: 3,
    },
  ]);
  expect(report().images).toEqual([
    {
      ksym: `bpf_trampoline_${f.key}_2`,
      address: tr.curImage?.image,
      length: tr.curImage?.length,
      state: 'live',
      references: 1n,
      waitsFor: null,
    },
  ]);
  expect(report().modules).toEqual([{ name: 'f', origin: 'module', references: 1 }]);
  expect(report().ksyms.find(({ name }) => name === 'f')).toMatchObject({ kind: 'module', module: 'f' });
});

test('trampolines by key; one that nobody named; one that is replaced', () => {
  const plain = guest.addFunction('plain', { plain: true, origin: 'kernel' });
  linkProg(guest.kernel, guest.addProgram('r', 'freplace').prog, get(plain));
  guest.kernel.trampolines.lookup(guest.kernel, 5n);
  expect(formatReport(report())).toMatch(/^0x5 +- +1 +- /m);
  expect(report().trampolines.map(({ key, function: fn, extension }) => [key, fn, extension])).toEqual([
    [5n, null, null],
    [plain.key, 'plain', 'r'],
  ]);
});

test('counters of each program on each CPU', () => {
  const { prog } = guest.addProgram('p', 'fentry');
  linkProg(guest.kernel, prog, get(f));
  guest.kernel.statsEnabled = true;
  guest.machine.cpus[1]?.begin(f.addr, [1n, 2n]);
  guest.machine.cpus[1]?.run({ stopAt: guest.kernel.scheduleEntry });
  guest.machine.cpus[1]?.abort();
  expect(report().programs).toMatchObject([
    {
      name: 'p',
      kind: 'fentry',
      sleepable: false,
      linked: true,
      references: 1,
      counters: [
        { runs: 0n, misses: 0n, active: 0 },
        { runs: 1n, misses: 0n, active: 0 },
      ],
    },
  ]);
});

describe('what a retired image waits for', () => {
  test('calls in flight, then the tasks that hold up RCU-tasks, then the workqueue', () => {
    const tr = get(f);
    const { prog } = guest.addProgram('p', 'fexit');
    linkProg(guest.kernel, prog, tr);
    const sleeper = start('sleeper', 0);
    expect(sleeper.asleep).toBe(true);
    const busy = start('busy', 1, 1);
    unlinkProg(guest.kernel, prog, tr);
    guest.kernel.settle();
    const image = () => report().images[0];
    expect(image()).toMatchObject({
      state: 'rcu-tasks',
      waitsFor: { flavour: 'rcu-tasks', tasks: ['busy'] },
    });
    expect(formatReport(report())).toContain('rcu-tasks: busy');

    sched.run(1, 100_000);
    guest.kernel.grace.tick('rcu-tasks');
    guest.kernel.grace.flavours['rcu-tasks'].run();
    expect(image()).toMatchObject({ state: 'percpu-ref', waitsFor: { flavour: 'rcu', tasks: [] } });
    guest.kernel.settle();
    expect(image()).toMatchObject({
      state: 'percpu-ref',
      references: 2n,
      waitsFor: { flavour: null, tasks: [] },
    });
    expect(formatReport(report())).toContain('calls in flight');

    for (const task of [sleeper, busy]) {
      sched.wake(task);
      sched.dispatch(task);
      sched.run(task.cpu, 100_000);
    }
    for (const im of guest.kernel.retired) im.pcref.poll();
    expect(image()).toMatchObject({ state: 'rcu-tasks-epilogue', references: 0n });
    guest.kernel.grace.tick('rcu-tasks');
    guest.kernel.grace.flavours['rcu-tasks'].run();
    expect(image()).toMatchObject({ state: 'work', waitsFor: { flavour: null, tasks: [] } });
    expect(formatReport(report())).toContain('the workqueue');
    guest.kernel.settle();
    expect(image()).toBeUndefined();
  });

  test('sleepable programs, and calls of the library', () => {
    const tr = get(f);
    const { prog } = guest.addProgram('p', 'fentry', { sleepable: true, sleeps: true });
    linkProg(guest.kernel, prog, tr);
    const cpu = guest.machine.cpus[0];
    cpu?.begin(f.addr, [1n, 2n]);
    cpu?.run({ stopAt: guest.kernel.scheduleEntry });
    unlinkProg(guest.kernel, prog, tr);
    expect(report().images[0]?.waitsFor).toEqual({ flavour: 'rcu-tasks-trace', tasks: [] });
    expect(formatReport(report())).toMatch(/ rcu-tasks-trace$/m);
    guest.kernel.settle();
    expect(report().images[0]?.waitsFor).toEqual({ flavour: 'rcu-tasks-trace', tasks: ['call on cpu0'] });
  });

  test('a task that is gone by now keeps its number', () => {
    const tr = get(f);
    const { prog } = guest.addProgram('p', 'fentry');
    linkProg(guest.kernel, prog, tr);
    const task = start('busy', 0, 1);
    unlinkProg(guest.kernel, prog, tr);
    guest.kernel.settle();
    expect(report().images[0]?.waitsFor?.tasks).toEqual(['busy']);
    sched.run(0, 100_000);
    sched.wake(task);
    sched.dispatch(task);
    sched.run(0, 100_000);
    sched.run(0, 1);
    expect(task.gone).toBe(true);
    expect(report().images[0]?.waitsFor?.tasks).toEqual([`task ${task.id}`]);
  });
});

test('as JSON: one document, 64-bit values as hex', () => {
  linkProg(guest.kernel, guest.addProgram('p', 'fentry').prog, get(f));
  const json = JSON.parse(reportToJson(report()));
  expect(json.trampolines[0]).toMatchObject({ key: `0x${f.key.toString(16)}`, function: 'f', selector: 1 });
  expect(json.images[0]).toMatchObject({ references: '0x1', waitsFor: null });
  expect(json.programs[0].counters[0]).toEqual({ runs: '0x0', nsecs: '0x0', misses: '0x0', active: 0 });
});

test('as tables for people', () => {
  linkProg(guest.kernel, guest.addProgram('p', 'fentry', { sleepable: true }).prog, get(f));
  guest.kernel.warnOn(true, 'something');
  const lines = formatReport(report()).split('\n');
  const key = `0x${f.key.toString(16)}`;
  const columns = (start: string) => lines.find((line) => line.startsWith(start))?.split(/ {2,}/);
  expect(columns(key)).toEqual([key, 'f', '1', `bpf_trampoline_${f.key}_0`, 'p', '-', '-', '-']);
  expect(columns('p ')).toEqual(['p', 'fentry.s', '1', '0', '0', '0', '0', '0']);
  expect(columns('f       module')).toEqual(['f', 'module', '1']);
  expect(columns('bpf_prog_p')?.at(-1)).toBe('[bpf]');
  expect(lines).toContain('charged pages: 1');
  expect(lines).toContain('WARNING: something');
  expect(lines.some((line) => line.includes('__bpf_prog_enter'))).toBe(false);
});

test('/proc/kallsyms lines', () => {
  linkProg(guest.kernel, guest.addProgram('p', 'fentry').prog, get(f));
  const image = report().images[0];
  expect(guest.kernel.kallsyms.lines()).toContain(`${hex16(image?.address ?? 0n)} t ${image?.ksym}\t[bpf]`);
  expect(guest.kernel.kallsyms.lines()).toContain(`${hex16(f.addr)} t f\t[f]`);
});

test('of v6.12: cookies, flags that stay, bytes charged', async () => {
  const v6 = await createGuest({ revision: 'v6.12' });
  const g = v6.addFunction('g');
  const tr = v6.kernel.trampolines.get(v6.kernel, g.key, g);
  for (const [name, kind, cookie] of [
    ['a', 'fentry', 0x1234n],
    ['b', 'fexit', 0n],
  ] as const) {
    linkProg(v6.kernel, new TrampLink(v6.addProgram(name, kind).prog, cookie), tr);
  }
  v6.kernel.settle();
  const all = introspect(v6.kernel);
  expect(all.trampolines).toMatchObject([
    { cookies: { fentry: [0x1234n], fmod_ret: [], fexit: [0n] }, flags: 6, selector: 0 },
  ]);
  const room = tr.curImage?.sizeBytes ?? 0;
  expect([all.modmemBytes, all.modmemPages]).toEqual([room, room / 4096]);
  const text = formatReport(all);
  expect(text).toContain('a,cookie=0x1234');
  expect(text).toContain(`charged bytes: ${room}`);
  v6.machine.close();
});
