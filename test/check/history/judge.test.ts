/*
 * The rules that read the log, each broken alone: a record of one call that is right, and what has to change
 * in it for each rule to speak.
 */

import { describe, expect, test } from 'vitest';
import {
  type CallRecord,
  type FunctionSpec,
  type HistoryRecord,
  judgeHistory,
  type LoadedLink,
  LoadedProgram,
  type LogEntry,
  type LoggedImage,
  ModelLink,
  Note,
  type ProgramSpec,
  type Span,
  type Version,
  type Way,
} from '../../../check/index.ts';

const TASK = 0x1000;
const IP = 0xa000_0000;
const COOKIE = 77n;
/** What may come to a patched function's entry. */
const LATER: Way = { image: undefined, extension: undefined, patched: true };

const FUNCTION: FunctionSpec = {
  place: 'module',
  site: 'ftrace',
  behind: false,
  args: 2,
  isVoid: false,
  slow: true,
  sleeps: false,
  calls: null,
};

const PROGRAM: ProgramSpec = {
  kind: 'fentry',
  sleepable: false,
  sleeps: false,
  returns: 0,
  asksIp: true,
  asksCookie: true,
  calls: null,
};

/** What a record is made from: everything but the log has a right value of its own. */
interface Scene {
  readonly programs?: readonly Partial<ProgramSpec>[];
  readonly log?: readonly Partial<LogEntry>[];
  readonly call?: Partial<CallRecord>;
  readonly more?: readonly Partial<CallRecord>[];
  readonly fn?: Partial<FunctionSpec>;
  readonly retired?: Span;
  /** v6. */
  readonly v6?: boolean;
  readonly patched?: boolean;
  readonly byStack?: boolean;
  /** When the trampoline is taken from a patched function. */
  readonly later?: readonly number[];
  readonly switches?: readonly Span[];
  readonly splats?: number;
  readonly counts?: { misses?: number; runs?: number; active?: number[]; odd?: number[] };
}

const run = (subject: number, more: Partial<LogEntry> = {}): Partial<LogEntry> => ({
  note: Note.run,
  subject,
  rcu: 1,
  migration: 1,
  ip: IP,
  cookie: Number(COOKIE),
  ...more,
});
const done = (subject: number, more: Partial<LogEntry> = {}): Partial<LogEntry> => ({
  note: Note.done,
  subject,
  cookie: Number(COOKIE),
  ...more,
});
const BODY: Partial<LogEntry> = { note: Note.body, subject: 0 };
const END: Partial<LogEntry> = { note: Note.end, subject: 0 };
const RIGHT = [run(0), done(0), BODY, END];

function record(scene: Scene): HistoryRecord {
  const specs = (scene.programs ?? [{}]).map((spec) => ({ ...PROGRAM, ...spec }));
  const programs = specs.map(
    (spec, id) => new LoadedProgram(id, `${spec.kind}${id}`, spec, undefined as never),
  );
  const of = (kind: string): LoadedProgram[] => programs.filter((program) => program.kind === kind);
  const links = (...kinds: string[]): LoadedLink[] =>
    kinds.flatMap((kind) => of(kind).map((program) => new ModelLink(program, COOKIE)));
  const image: LoggedImage = {
    name: 'image',
    links: { fentry: links('fentry'), fmod_ret: links('fmod_ret', 'lsm'), fexit: links('fexit') },
    callsFunction: of('fexit').length + of('fmod_ret').length > 0,
    byStack: scene.byStack ?? false,
    skipsExit: scene.retired !== undefined,
  };
  const [extension] = of('freplace');
  const way: Way = {
    image: extension === undefined ? image : undefined,
    extension,
    patched: scene.patched ?? false,
  };
  const version: Version = { from: 0, ways: [way], ip: IP };
  const versions = [version, ...(scene.later ?? []).map((from) => ({ from, ways: [LATER], ip: IP }))];
  const entry: LogEntry = {
    note: Note.body,
    subject: 0,
    task: TASK,
    cpu: 0,
    rcu: 0,
    trace: 0,
    migration: 0,
    ip: 0,
    cookie: 0,
  };
  const entries = (scene.log ?? RIGHT).map((one) => ({ ...entry, ...one }));
  const call: CallRecord = {
    task: 't0',
    taskId: TASK,
    fn: 0,
    args: [1n, 1000n],
    version,
    from: 0,
    to: entries.length,
    result: 1001n,
  };
  const counts = { misses: 0, runs: 0, active: [0], odd: [], ...scene.counts };
  return {
    entries,
    functions: [{ name: 'f0', spec: { ...FUNCTION, ...scene.fn }, versions }],
    programs,
    calls: [{ ...call, ...scene.call }, ...(scene.more ?? []).map((one) => ({ ...call, ...one }))],
    retired: new Map(scene.retired === undefined ? [] : [[image, scene.retired]]),
    switches: scene.switches ?? [],
    zeroClocks: 0,
    counts: programs.slice(0, 1).map((program) => ({ program, ...counts })),
    splats: scene.splats ?? 0,
    knowsIp: true,
    v6: scene.v6 ?? false,
  };
}

const broken = (scene: Scene): string[] => judgeHistory(record(scene)).findings.map(({ rule }) => rule);
const detail = (scene: Scene): string => judgeHistory(record(scene)).findings[0]?.detail ?? 'nothing';

test('a call that did what it owed breaks no rule', () => {
  expect(broken({})).toEqual([]);
  expect([...judgeHistory(record({})).marks]).toEqual(['traced']);
});

describe('runs-agree', () => {
  const two = [{}, { kind: 'fexit' as const }];

  test.each([
    ['the body is missing', [run(0), done(0)]],
    ['the program runs behind the body', [BODY, END, run(0), done(0)]],
    ['it runs twice', [run(0), done(0), run(0), done(0), BODY, END]],
    ['its end is missing', [run(0), BODY, END]],
    ['somebody runs who is not attached', [run(0), done(0), run(1), done(1), BODY, END]],
  ])('%s', (_, log) => {
    expect(broken({ log })).toEqual(['runs-agree']);
  });

  test('says what was due and what came', () => {
    expect(detail({ log: [run(0), done(0)] })).toBe(
      't0 calls f0(1, 1000): the return where the body of f0 was due',
    );
  });

  test('an fmod_ret program that is not 0 keeps the function from running', () => {
    const programs = [{ kind: 'fmod_ret' as const, returns: 7 }];
    const call = { result: 7n };
    expect(broken({ programs, log: [run(0), done(0)], call })).toEqual([]);
    expect(broken({ programs, log: [run(0), done(0), BODY, END], call })).toEqual(['runs-agree']);
    // one that was missed does not
    expect(broken({ programs, log: [BODY, END], counts: { misses: 1 } })).toEqual(['recursion']);
  });

  test('of an image retired before the function ended the fexit programs are left out', () => {
    const log = [run(0), done(0), BODY, END];
    const before = { from: 2, to: 3 };
    expect(broken({ programs: two, log, retired: before })).toEqual([]);
    expect(broken({ programs: two, log: [...log, run(1), done(1)], retired: before })).toEqual([
      'runs-agree',
    ]);
  });

  test('retired while it returned, they may run or not; retired later, they run', () => {
    const log = [run(0), done(0), BODY, END];
    const all = [...log, run(1), done(1)];
    const during = { from: 3, to: 5 };
    expect(broken({ programs: two, log, retired: during })).toEqual([]);
    expect(broken({ programs: two, log: all, retired: during })).toEqual([]);
    expect(broken({ programs: two, log: all, retired: { from: 6, to: 6 } })).toEqual([]);
    expect(broken({ programs: two, log, retired: { from: 5, to: 6 } })).toEqual(['recursion']);
  });

  test('a replaced function does not run', () => {
    const programs = [{ kind: 'freplace' as const, returns: 9 }];
    expect(broken({ programs, log: [run(0), done(0)], call: { result: 9n } })).toEqual([]);
    expect(broken({ programs, log: [BODY, END] })).toEqual(['runs-agree']);
  });
});

test('return-value: another one than the function’s', () => {
  expect(broken({ call: { result: 5n } })).toEqual(['return-value']);
  expect(broken({ call: { result: 5n }, fn: { isVoid: true } })).toEqual([]);
});

test('func-ip: another address than the function’s', () => {
  expect(broken({ log: [run(0, { ip: 5 }), done(0), BODY, END] })).toEqual(['func-ip']);
  expect(broken({ programs: [{ asksIp: false }], log: [run(0, { ip: 5 }), done(0), BODY, END] })).toEqual([]);
});

describe('cookie', () => {
  test.each([
    ['at its beginning', run(0, { cookie: 5 }), done(0)],
    ['at its end', run(0), done(0, { cookie: 5 })],
  ])('another one than that of its link, %s', (_, start, end) => {
    const log = [start, end, BODY, END];
    expect(broken({ log, v6: true })).toEqual(['cookie']);
    expect(broken({ log })).toEqual([]);
    expect(broken({ log, v6: true, programs: [{ asksCookie: false }] })).toEqual([]);
  });
});

describe('live patches', () => {
  const PATCH: Partial<LogEntry> = { note: Note.patch, subject: 0 };
  const PATCH_END: Partial<LogEntry> = { note: Note.patchEnd, subject: 0 };
  const log = [run(0), done(0), PATCH, PATCH_END];
  const call = { result: 0x4000n + 1001n };

  test('another function runs, and its result is returned', () => {
    expect(broken({ patched: true, log, call })).toEqual([]);
    expect(broken({ patched: true, log })).toEqual(['return-value']);
    expect(broken({ patched: true })).toEqual(['runs-agree']);
    expect(broken({ log, call })).toEqual(['runs-agree']);
  });

  test('an image that calls the function itself passes by; one that looks at its stack does not', () => {
    const programs = [{ kind: 'fmod_ret' as const }];
    expect(broken({ patched: true, programs })).toEqual([]);
    expect(broken({ patched: true, programs, log, call })).toEqual(['runs-agree']);
    expect(broken({ patched: true, byStack: true, programs, log, call })).toEqual([]);
    expect(broken({ patched: true, byStack: true, programs })).toEqual(['runs-agree']);
  });

  test('a call in ftrace’s code may find the trampoline gone, until its first entry', () => {
    const untraced = [PATCH, PATCH_END];
    expect(broken({ patched: true, log: untraced, call, later: [0] })).toEqual([]);
    const counts = { misses: 1 };
    expect(broken({ patched: true, log: untraced, call, counts, later: [1] })).toEqual(['recursion']);
    expect(broken({ log: untraced, call, later: [0] })).toEqual(['runs-agree']);
  });
});

test.each([
  ['no rcu_read_lock', {}, run(0, { rcu: 0 }), done(0)],
  ['no rcu_read_lock_trace', { sleepable: true }, run(0, { rcu: 1, trace: 0 }), done(0)],
  ['migration enabled', {}, run(0, { migration: 0 }), done(0)],
  ['it is moved', {}, run(0), done(0, { cpu: 1 })],
])('read-side: %s', (_, program, start, end) => {
  expect(broken({ programs: [program], log: [start, end, BODY, END] })).toEqual(['read-side']);
});

describe('recursion', () => {
  const other = { task: 't1', taskId: TASK + 1 };
  const by = (entry: Partial<LogEntry>, cpu: number = 0): Partial<LogEntry> => ({
    ...entry,
    task: TASK + 1,
    cpu,
  });

  test('a program is refused, and nobody runs it', () => {
    expect(broken({ log: [BODY, END], counts: { misses: 1 } })).toEqual(['recursion']);
  });

  test('a program is refused while another task is in it', () => {
    const log = [run(0), by(BODY), by(END), done(0), BODY, END];
    expect(broken({ log, more: [other], counts: { misses: 1 } })).toEqual([]);
  });

  test('it runs where it runs already', () => {
    const log = [run(0), by(run(0)), by(done(0)), by(BODY), by(END), done(0), BODY, END];
    expect(broken({ log, more: [other] })).toEqual(['recursion']);
  });

  test('from v6.1 on an LSM program runs where it runs already, and is never refused', () => {
    const programs = [{ kind: 'lsm' as const }];
    const log = [run(0), by(run(0)), by(done(0)), by(BODY), by(END), done(0), BODY, END];
    expect(broken({ programs, log, more: [other], v6: true })).toEqual([]);
    expect(broken({ programs, log, more: [other] })).toEqual(['recursion']);
    const refused = [run(0), by(BODY), by(END), done(0), BODY, END];
    expect(broken({ programs, log: refused, more: [other], counts: { misses: 1 } })).toEqual([]);
    expect(broken({ programs, log: refused, more: [other], counts: { misses: 1 }, v6: true })).toEqual([
      'runs-agree',
    ]);
  });

  test('and calls only where a task has called it', () => {
    const programs = [{ kind: 'lsm' as const, calls: 0 }];
    const once = [run(0), run(0), done(0), BODY, END, done(0), BODY, END];
    expect(broken({ programs, log: once, v6: true })).toEqual([]);
    expect(broken({ programs, v6: true })).toEqual(['runs-agree']);
  });

  test('it runs on another CPU meanwhile', () => {
    const log = [run(0), by(run(0), 1), by(done(0), 1), by(BODY), by(END), done(0), BODY, END];
    expect(broken({ log, more: [other] })).toEqual([]);
  });
});

describe('counters-add-up', () => {
  const on = [{ from: 0, to: 0 }];

  test.each([
    ['a miss that was none', { counts: { misses: 1 } }],
    ['it is left active', { counts: { active: [1] } }],
    ['active below zero elsewhere', { counts: { active: [0, -1] } }],
    ['the sequence is odd', { counts: { odd: [0] } }],
    ['a run is counted while statistics are off', { counts: { runs: 1 } }],
    ['no run is counted while they are on', { switches: [{ from: 0, to: -1 }], counts: { runs: 0 } }],
    ['two are', { switches: on, counts: { runs: 2 } }],
  ])('%s', (_, scene) => {
    expect(broken(scene)).toEqual(['counters-add-up']);
  });

  test('a run that may have begun before statistics were switched on may count or not', () => {
    const switches = [{ from: 0, to: 0 }];
    expect(broken({ switches, counts: { runs: 1 } })).toEqual([]);
    expect(broken({ switches, counts: { runs: 0 } })).toEqual([]);
    expect(broken({ switches: [{ from: 1, to: 1 }], counts: { runs: 1 } })).toEqual(['counters-add-up']);
  });
});

test('splats: sleepable programs inside of one that is not, and no others', () => {
  const programs = [{ calls: 0 }, { kind: 'fexit' as const, sleepable: true }];
  const inner = [BODY, END, run(1, { trace: 1 }), done(1)];
  const log = [run(0), ...inner, done(0), ...inner];
  const counts = { misses: 1 };
  expect(broken({ programs, log, counts, splats: 1 })).toEqual([]);
  expect(broken({ programs, log, counts, splats: 0 })).toEqual(['splats']);
  expect(broken({ programs, log, counts, splats: 2 })).toEqual(['splats']);
});
