/*
 * Cases from random numbers. They are small and dense: one to three functions, so that programs meet, and
 * schedules that differ a lot from each other, as each kind of race has odds of its own: who is preempted
 * often is seldom woken late.
 */

import { InputError } from '../../lib/index.ts';
import type { AttachKind, FailPoint } from '../../tramp/index.ts';
import type { FamilyOptions } from '../family.ts';
import type { Random } from '../random.ts';
import {
  type FunctionSpec,
  failPointsOf,
  HISTORY_REVISIONS,
  type HistoryCase,
  type HistoryRevision,
  isV6,
  type Operation,
  type ProgramSpec,
  type ScheduleSpec,
  type TaskSpec,
} from './case.ts';

/** Kinds as often as they are wanted: around a function, and in place of it. */
const AROUND: readonly AttachKind[] = [
  ...(['fentry', 'fentry', 'fentry', 'fexit', 'fexit', 'fexit'] as const),
  ...(['fmod_ret', 'fmod_ret', 'lsm', 'freplace'] as const),
];
/** LSM programs a little more often: from v6.1 on they have a pair of their own. */
const AROUND_V6: readonly AttachKind[] = [...AROUND, 'lsm', 'fentry'];
const INSTEAD: readonly AttachKind[] = ['freplace', 'freplace', 'freplace', 'fentry'];

/** @throws InputError when the model knows none of the revisions */
export function drawCase(random: Random, { revisions }: FamilyOptions): HistoryCase {
  const known = HISTORY_REVISIONS.filter((name) => revisions.includes(name));
  if (known.length === 0) {
    const there = `histories are played on ${HISTORY_REVISIONS.join(', ')}`;
    throw new InputError('revision', undefined, `${revisions.join(', ')}: ${there}`);
  }
  const revision = random.pick(known);
  const cpus = random.pick([1, 1, 2, 2, 3, 4]);
  const functions = drawFunctions(random);
  const replaces = functions.some(({ site }) => site === 'nop') && random.once(5);
  const kinds = replaces ? INSTEAD : isV6({ revision }) ? AROUND_V6 : AROUND;
  const programs = drawPrograms(random, functions, kinds, isV6({ revision }));
  const isCrowd = random.once(60);
  const operations = isCrowd
    ? drawCrowd(random, functions, isV6({ revision }))
    : drawOperations(random, functions, programs, revision);
  // A call of a full image has thousands of instructions.
  const schedule = drawSchedule(random, isCrowd ? [200, 1000] : [1, 2, 6, 12, 24, 24, 60, 200]);
  return {
    revision,
    preemption: !random.once(3),
    cpus,
    schedule,
    functions,
    programs,
    tasks: drawTasks(random, cpus, functions, operations.length, schedule.slice),
    operations,
  };
}

function drawSchedule(random: Random, slices: readonly number[]): ScheduleSpec {
  const seed = random.u32();
  const slice = random.pick(slices);
  return {
    seed,
    slice,
    host: random.pick([1, 2, 5, 10]),
    weights: {
      run: 20,
      // a task that gets an instruction or two each time must get its turn now and then
      dispatch: random.pick(slice <= 2 ? [4, 4, 20, 20] : [1, 4, 20, 20]),
      preempt: random.pick([1, 3, 10, 30]),
      migrate: random.pick([1, 4, 12]),
      wake: random.pick([1, 2, 6, 20]),
      tick: random.pick([3, 10, 40]),
      callback: random.pick([3, 10, 40]),
    },
  };
}

function drawFunctions(random: Random): FunctionSpec[] {
  const functions: FunctionSpec[] = [];
  const count = random.pick([1, 1, 2, 2, 3]);
  for (let i = 0; i < count; i++) {
    const place = random.pick(['module', 'kernel'] as const);
    const slow = !random.once(3);
    const callees = functions.flatMap((callee, index) => (slow || !callee.slow ? [index] : []));
    functions.push({
      place,
      site: place === 'kernel' && !random.once(3) ? 'nop' : 'ftrace',
      behind: i > 0 && random.once(3),
      args: random.once(5) ? 6 : 2,
      isVoid: random.once(6),
      slow,
      sleeps: slow && !random.once(3),
      calls: callees.length > 0 && random.once(3) ? random.pick(callees) : null,
    });
  }
  return functions;
}

function drawPrograms(
  random: Random,
  functions: readonly FunctionSpec[],
  kinds: readonly AttachKind[],
  v6: boolean,
): ProgramSpec[] {
  const programs: ProgramSpec[] = [];
  const quick = functions.flatMap(({ slow }, index) => (slow ? [] : [index]));
  const count = random.int(2, 6);
  /** Of 100 programs, how many are sleepable, and how many call. */
  const sleepy = random.pick([0, 40, 60, 90]);
  const busy = random.pick([15, 30, 70]);
  let calling = 0;
  for (let i = 0; i < count; i++) {
    const kind = random.pick(kinds);
    const plain = kind === 'freplace';
    const sleepable = !plain && random.int(1, 100) <= sleepy;
    const callees = sleepable ? functions.map((_, index) => index) : quick;
    const calls =
      !plain && calling < 2 && callees.length > 0 && random.int(1, 100) <= busy ? random.pick(callees) : null;
    if (calls !== null) calling++;
    const answers = plain || ((kind === 'fmod_ret' || kind === 'lsm') && random.once(3));
    programs.push({
      kind,
      sleepable,
      sleeps: sleepable && !random.once(3),
      returns: answers ? 10 + i : 0,
      asksIp: !plain && random.once(4),
      asksCookie: v6 && !plain && random.once(2),
      calls,
    });
  }
  return programs;
}

/** Tasks come while the host works, so that there is somebody to meet to the end. */
function drawTasks(
  random: Random,
  cpus: number,
  functions: readonly FunctionSpec[],
  operations: number,
  slice: number,
): TaskSpec[] {
  // Where each instruction is an event of its own, less is enough.
  const most = slice <= 2 ? 3 : 5;
  return Array.from({ length: random.int(2, most) }, () => ({
    cpu: random.int(0, cpus - 1),
    after: random.once(3) ? 0 : random.int(0, operations),
    calls: Array.from({ length: random.int(1, slice <= 2 ? 2 : 3) }, () =>
      random.int(0, functions.length - 1),
    ),
    exiting: random.once(4),
  }));
}

/** Attaching and detaching, mostly of what is not attached and of what is. */
function drawOperations(
  random: Random,
  functions: readonly FunctionSpec[],
  programs: readonly ProgramSpec[],
  revision: HistoryRevision,
): Operation[] {
  const v6 = isV6({ revision });
  const failPoints = failPointsOf(revision);
  const operations: Operation[] = [];
  /** What was attached, as often as it was. */
  let attached: number[] = [];
  const anyProgram = (): number => random.int(0, programs.length - 1);
  const anyFunction = (): number => random.int(0, functions.length - 1);
  const fail = (): FailPoint | null => (random.once(6) ? random.pick(failPoints) : null);
  const attach = (): Operation => {
    const free = programs.flatMap((_, index) => (attached.includes(index) ? [] : [index]));
    // from v6.1 on a program may be in several places
    const program = free.length > 0 && !random.once(v6 ? 4 : 6) ? random.pick(free) : anyProgram();
    if (v6 || !attached.includes(program)) attached.push(program);
    const cookie = v6 && random.once(2) ? random.u32() : null;
    return { op: 'attach', program, fn: anyFunction(), cookie, fail: fail() };
  };
  const detach = (): Operation[] => {
    const program = attached.length > 0 ? random.pick(attached) : anyProgram();
    const isPut = random.once(2);
    // one that is put has to go from everywhere
    const places = isPut ? Math.max(attached.filter((one) => one === program).length, 1) : 1;
    for (let i = 0; i < places; i++) {
      const at = attached.indexOf(program);
      attached = attached.filter((_, index) => index !== at);
    }
    const gone = Array.from({ length: places }, (): Operation => ({ op: 'detach', program, fail: fail() }));
    return isPut ? [...gone, { op: 'put', program }] : gone;
  };
  const count = random.int(4, v6 ? 16 : 14);
  operations.push(attach());
  while (operations.length < count) {
    // live patches share their sites with trampolines from v6.1 on, and keep them out before
    if (random.once(v6 ? 12 : 40)) {
      operations.push({ op: 'livepatch', fn: anyFunction(), fail: fail() });
      continue;
    }
    // a BPF program in a prog array is not replaced, from v6.1 on
    if (v6 && random.once(20)) {
      operations.push({ op: 'array', fn: anyFunction() });
      continue;
    }
    const draw = random.int(1, 100);
    if (draw <= 45) operations.push(attach());
    else if (draw <= 82) operations.push(...detach());
    else if (draw <= 90) operations.push({ op: 'stats', zero: random.once(3) });
    else if (draw <= 93) operations.push({ op: 'reload', fn: anyFunction() });
    else if (draw <= 96) operations.push({ op: 'hold', fn: anyFunction() });
    else operations.push({ op: 'foreign', fn: anyFunction() });
  }
  return operations;
}

/** As many programs as an image takes, and more. */
function drawCrowd(random: Random, functions: readonly FunctionSpec[], v6: boolean): Operation[] {
  const fn = random.int(0, functions.length - 1);
  const kinds = [
    'fentry',
    'fexit',
    ...(functions[fn]?.isVoid === true ? [] : ['fmod_ret' as const]),
  ] as const;
  const kind = random.pick(kinds);
  const fill = (more: AttachKind, count: number): Operation => ({ op: 'fill', fn, kind: more, count });
  // before v6.1 fmod_ret programs are counted by themselves
  const isAlone = (kind === 'fmod_ret' && !v6) || random.once(2);
  if (isAlone) return [fill(kind, 40), { op: 'empty', fn, keep: 34 }];
  const others = kinds.filter((one) => one !== kind && (v6 || one !== 'fmod_ret'));
  const other = random.pick(others);
  const some = random.int(1, 37);
  return [fill(kind, some), fill(other, 40 - some), { op: 'empty', fn, keep: 35 }];
}
