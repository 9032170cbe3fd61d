/*
 * Smaller cases: with less in them first, simpler ones then. Each differs by one thing from the given one.
 */

import type { HistoryCase, Operation, ProgramSpec } from './case.ts';

/** What is left out changes all that the schedule draws afterwards, so that a race may need another seed. */
const SEEDS = 2;

export function* shrinkCase(one: HistoryCase): Generator<HistoryCase> {
  yield* withFewer(one);
  yield* simplerTasks(one);
  yield* simplerOperations(one);
  yield* simplerPrograms(one);
  yield* simplerFunctions(one);
  if (one.cpus > 1) {
    const cpus = one.cpus - 1;
    const tasks = one.tasks.map((task) => ({ ...task, cpu: Math.min(task.cpu, cpus - 1) }));
    yield { ...one, cpus, tasks };
  }
  for (const fewer of withFewer(one)) {
    for (let seed = 0; seed < SEEDS; seed++) yield { ...fewer, schedule: { ...fewer.schedule, seed } };
  }
}

function* withFewer(one: HistoryCase): Generator<HistoryCase> {
  yield* withLess(one, 'operations');
  yield* withLess(one, 'tasks');
  for (let i = 0; i < one.programs.length; i++) yield withoutProgram(one, i);
  if (one.functions.length > 1) yield* withoutFunctions(one);
}

/** Without a half, a quarter, ... of a list, then without each single item. */
function* withLess(one: HistoryCase, what: 'operations' | 'tasks'): Generator<HistoryCase> {
  const list: readonly unknown[] = one[what];
  for (let size = Math.floor(list.length / 2); size >= 1; size = Math.floor(size / 2)) {
    for (let start = 0; start < list.length; start += size) {
      yield { ...one, [what]: [...list.slice(0, start), ...list.slice(start + size)] };
    }
  }
  if (list.length === 1) yield { ...one, [what]: [] };
}

function withoutProgram(one: HistoryCase, gone: number): HistoryCase {
  const operations = one.operations.flatMap((operation): Operation[] => {
    if (!('program' in operation)) return [operation];
    const { program } = operation;
    return program === gone ? [] : [{ ...operation, program: program > gone ? program - 1 : program }];
  });
  return { ...one, operations, programs: one.programs.filter((_, i) => i !== gone) };
}

function* withoutFunctions(one: HistoryCase): Generator<HistoryCase> {
  for (let gone = one.functions.length - 1; gone >= 0; gone--) {
    const moved = (fn: number): number => (fn > gone ? fn - 1 : fn);
    const called = (fn: number | null): number | null => (fn === null || fn === gone ? null : moved(fn));
    yield {
      ...one,
      functions: one.functions
        .filter((_, i) => i !== gone)
        .map((fn, i) => ({ ...fn, calls: called(fn.calls), behind: fn.behind && i > 0 })),
      programs: one.programs.map((program) => ({ ...program, calls: called(program.calls) })),
      tasks: one.tasks.map((task) => ({
        ...task,
        calls: task.calls.filter((fn) => fn !== gone).map(moved),
      })),
      operations: one.operations.flatMap((operation): Operation[] => {
        if (!('fn' in operation)) return [operation];
        return operation.fn === gone ? [] : [{ ...operation, fn: moved(operation.fn) }];
      }),
    };
  }
}

function* simplerTasks(one: HistoryCase): Generator<HistoryCase> {
  for (const [i, task] of one.tasks.entries()) {
    const put = (change: Partial<typeof task>): HistoryCase => ({
      ...one,
      tasks: one.tasks.with(i, { ...task, ...change }),
    });
    if (task.calls.length > 1) {
      for (let k = 0; k < task.calls.length; k++)
        yield put({ calls: task.calls.filter((_, at) => at !== k) });
    }
    if (task.exiting) yield put({ exiting: false });
    if (task.after > 0) yield put({ after: 0 });
  }
}

function* simplerOperations(one: HistoryCase): Generator<HistoryCase> {
  for (const [i, operation] of one.operations.entries()) {
    const put = (simpler: Operation): HistoryCase => ({
      ...one,
      operations: one.operations.with(i, simpler),
    });
    if ('fail' in operation && operation.fail !== null) yield put({ ...operation, fail: null });
    if (operation.op === 'attach' && operation.cookie !== null) yield put({ ...operation, cookie: null });
    if (operation.op === 'fill' && operation.count > 1) {
      yield put({ ...operation, count: Math.floor(operation.count / 2) });
      yield put({ ...operation, count: operation.count - 1 });
    }
    if (operation.op === 'stats' && operation.zero) yield put({ ...operation, zero: false });
  }
}

function* simplerPrograms(one: HistoryCase): Generator<HistoryCase> {
  for (const [i, program] of one.programs.entries()) {
    const put = (change: Partial<ProgramSpec>): HistoryCase => ({
      ...one,
      programs: one.programs.with(i, { ...program, ...change }),
    });
    if (program.calls !== null) yield put({ calls: null });
    if (program.sleeps) yield put({ sleeps: false });
    else if (program.sleepable) yield put({ sleepable: false });
    if (program.asksIp) yield put({ asksIp: false });
    if (program.asksCookie) yield put({ asksCookie: false });
    if (program.returns !== 0 && program.kind !== 'freplace') yield put({ returns: 0 });
  }
}

function* simplerFunctions(one: HistoryCase): Generator<HistoryCase> {
  for (const [i, fn] of one.functions.entries()) {
    const put = (change: Partial<typeof fn>): HistoryCase => ({
      ...one,
      functions: one.functions.with(i, { ...fn, ...change }),
    });
    if (fn.calls !== null) yield put({ calls: null });
    if (fn.sleeps) yield put({ sleeps: false });
    if (fn.behind) yield put({ behind: false });
    if (fn.args > 2) yield put({ args: 2 });
    if (fn.isVoid) yield put({ isVoid: false });
  }
}
