/*
 * A history as plain data: what there is to trace and to attach, who calls, and what the host does. When
 * each thing happens follows from the schedule's seed and weights.
 */

import { InputError } from '../../lib/index.ts';
import { ATTACH_KINDS, type AttachKind, type FailPoint, WEIGHTS, type Weights } from '../../tramp/index.ts';

/** Revisions whose manager the model knows. */
export const HISTORY_REVISIONS = ['v5.13', 'v5.15', 'v6.1', 'v6.12'] as const;
export type HistoryRevision = (typeof HISTORY_REVISIONS)[number];

/** Where their operations can be made to fail. Where a revision does not pass, nothing fails. */
export const HISTORY_FAIL_POINTS: readonly FailPoint[] = [
  'alloc-trampoline',
  'alloc-ops',
  'alloc-progs',
  'size',
  'alloc-im',
  'charge',
  'alloc-image',
  'percpu-ref',
  'emit',
  'protect',
  'filter',
  'register',
  'modify',
  'ftrace-hash',
  'unregister',
  'poke',
];

const SINCE_6_1: readonly FailPoint[] = ['alloc-ops', 'filter'];
const SINCE_6_12: readonly FailPoint[] = ['size', 'protect'];

/** Those that a revision passes. */
export function failPointsOf(revision: HistoryRevision): readonly FailPoint[] {
  return HISTORY_FAIL_POINTS.filter(
    (point) =>
      (isV6({ revision }) || !SINCE_6_1.includes(point)) &&
      (revision === 'v6.12' || !SINCE_6_12.includes(point)),
  );
}

export interface HistoryCase {
  readonly revision: HistoryRevision;
  /** CONFIG_PREEMPTION. */
  readonly preemption: boolean;
  /** 1 to 4. */
  readonly cpus: number;
  readonly schedule: ScheduleSpec;
  readonly functions: readonly FunctionSpec[];
  readonly programs: readonly ProgramSpec[];
  readonly tasks: readonly TaskSpec[];
  /** What the host does, in this order. */
  readonly operations: readonly Operation[];
}

export interface ScheduleSpec {
  readonly seed: number;
  /** Longest run of instructions on one CPU without anything else happening. */
  readonly slice: number;
  /** How likely an operation of the host is, beside the weights. */
  readonly host: number;
  readonly weights: Weights;
}

/** A function that can be traced; its number is its place. */
export interface FunctionSpec {
  readonly place: 'module' | 'kernel';
  /** What is at its entry: a site of ftrace's, or a bare nop, which only kernel text has: it is a BPF program. */
  readonly site: 'ftrace' | 'nop';
  /** It begins at the first byte behind the function before it. */
  readonly behind: boolean;
  readonly args: 2 | 6;
  readonly isVoid: boolean;
  /** Whether those who call it may sleep: it, what it calls, and the programs attached to it. */
  readonly slow: boolean;
  /** It sleeps once in each call. */
  readonly sleeps: boolean;
  /** A function before it that it calls. */
  readonly calls: number | null;
}

/** A program that can be attached; its number is its place. */
export interface ProgramSpec {
  readonly kind: AttachKind;
  readonly sleepable: boolean;
  /** It sleeps once in each run. */
  readonly sleeps: boolean;
  /** What it returns: for fmod_ret, LSM and freplace programs, in place of the function's result. */
  readonly returns: number;
  readonly asksIp: boolean;
  /** It asks for its cookie, at its beginning and at its end; before v6.1 nobody answers, so it does not. */
  readonly asksCookie: boolean;
  /** A function that it calls. One that may run inside of itself does so only when a task has called it. */
  readonly calls: number | null;
}

/** A task: calls functions, one after the other, and exits. */
export interface TaskSpec {
  /** Where it starts. */
  readonly cpu: number;
  /** It starts when so many operations of the host are over. */
  readonly after: number;
  /** The functions that it calls. */
  readonly calls: readonly number[];
  /** It makes its last call on its way out. */
  readonly exiting: boolean;
}

/** What the host does. What makes no sense when its turn comes is left out. */
export type Operation =
  | {
      readonly op: 'attach';
      readonly program: number;
      readonly fn: number;
      /** Of a new link of the program; null: by its own link, as always before v6.1 and for freplace. */
      readonly cookie: number | null;
      readonly fail: FailPoint | null;
    }
  /** From where it has been attached longest. */
  | { readonly op: 'detach'; readonly program: number; readonly fail: FailPoint | null }
  /** The loader lets go of a program that is not attached. It is loaded anew when it is attached again. */
  | { readonly op: 'put'; readonly program: number }
  /** The function's module is unloaded and loaded again. */
  | { readonly op: 'reload'; readonly fn: number }
  /** Statistics are switched on or off; `zero`: and the clock begins at 0. */
  | { readonly op: 'stats'; readonly zero: boolean }
  /** Somebody else changes what stands at the entry of a function that is not traced, or puts it back. */
  | { readonly op: 'foreign'; readonly fn: number }
  /** A program is loaded for the function, which takes a reference to its trampoline; the next time it is unloaded. */
  | { readonly op: 'hold'; readonly fn: number }
  /** A live patch has another function run in place of one that has a site of ftrace's; the next time it goes. */
  | { readonly op: 'livepatch'; readonly fn: number; readonly fail: FailPoint | null }
  /** The BPF program that a function with a bare nop is goes into a prog array; the next time it is taken out. */
  | { readonly op: 'array'; readonly fn: number }
  /** So many more programs of a kind are attached. */
  | { readonly op: 'fill'; readonly fn: number; readonly kind: AttachKind; readonly count: number }
  /** What `fill` attached is detached, all but so many. */
  | { readonly op: 'empty'; readonly fn: number; readonly keep: number };

/** The second argument of every call that a task makes; programs call with another one. */
export const TASK_ARGUMENT = 1000;

/** What the function that a live patch puts in the place of another returns more than that. */
export const PATCH_ADDS = 0x4000;

/** Whether programs have cookies, links and the other things of v6. */
export function isV6({ revision }: Pick<HistoryCase, 'revision'>): boolean {
  return revision === 'v6.1' || revision === 'v6.12';
}

/** Whether a program may run where it runs already: from v6.1 on nobody counts LSM programs. */
export function mayNest({ kind }: ProgramSpec, v6: boolean): boolean {
  return v6 && kind === 'lsm';
}

/** Most of each, so that a case stays small and its programs fit an image. */
export const MOST = { functions: 4, programs: 8, tasks: 8, calls: 8, operations: 64, fill: 40 } as const;

// -- from JSON -----------------------------------------------------------------------------------------

/** @throws InputError naming the field that is not as it must be */
export function parseCase(json: unknown): HistoryCase {
  const top = new Fields(json, 'case');
  const functions = top.list('functions', 1, MOST.functions, (item, i) => {
    const fields = new Fields(item, `functions[${i}]`);
    const fn: FunctionSpec = {
      place: fields.one('place', ['module', 'kernel']),
      site: fields.one('site', ['ftrace', 'nop']),
      behind: fields.flag('behind'),
      args: fields.one('args', [2, 6]),
      isVoid: fields.flag('isVoid'),
      slow: fields.flag('slow'),
      sleeps: fields.flag('sleeps'),
      calls: fields.maybe('calls', 0, i - 1),
    };
    if (fn.site === 'nop' && fn.place === 'module')
      fields.refuse('site', 'a bare nop is in kernel text only');
    if (fn.behind && i === 0) fields.refuse('behind', 'nothing is before the first function');
    if (fn.sleeps && !fn.slow) fields.refuse('sleeps', 'only a slow function may');
    return fn;
  });
  functions.forEach(({ slow, calls }, i) => {
    if (!slow && calls !== null && functions[calls]?.slow === true) {
      throw new InputError('case', `functions[${i}].calls`, 'a function that is not slow calls a slow one');
    }
  });
  const programs = top.list('programs', 0, MOST.programs, (item, i) => {
    const fields = new Fields(item, `programs[${i}]`);
    const program: ProgramSpec = {
      kind: fields.one('kind', ATTACH_KINDS),
      sleepable: fields.flag('sleepable'),
      sleeps: fields.flag('sleeps'),
      returns: fields.whole('returns', 0, 0x7fff_ffff),
      asksIp: fields.flag('asksIp'),
      asksCookie: fields.flag('asksCookie'),
      calls: fields.maybe('calls', 0, functions.length - 1),
    };
    if (program.sleeps && !program.sleepable) fields.refuse('sleeps', 'only a sleepable program may');
    if (program.kind === 'freplace' && hasExtras(program)) {
      fields.refuse('kind', 'a freplace program neither sleeps, nor calls, nor asks');
    }
    return program;
  });
  const fn = (fields: Fields): number => fields.whole('fn', 0, functions.length - 1);
  const program = (fields: Fields): number => fields.whole('program', 0, programs.length - 1);
  const fail = (fields: Fields): FailPoint | null => fields.one('fail', [null, ...HISTORY_FAIL_POINTS]);
  const cpus = top.whole('cpus', 1, 4);
  return {
    revision: top.one('revision', HISTORY_REVISIONS),
    preemption: top.flag('preemption'),
    cpus,
    schedule: parseSchedule(top.child('schedule')),
    functions,
    programs,
    tasks: top.list('tasks', 0, MOST.tasks, (item, i) => {
      const fields = new Fields(item, `tasks[${i}]`);
      return {
        cpu: fields.whole('cpu', 0, cpus - 1),
        after: fields.whole('after', 0, MOST.operations),
        calls: fields.list('calls', 0, MOST.calls, (call) =>
          new Fields({ call }, `tasks[${i}].calls`).whole('call', 0, functions.length - 1),
        ),
        exiting: fields.flag('exiting'),
      };
    }),
    operations: top.list('operations', 0, MOST.operations, (item, i): Operation => {
      const fields = new Fields(item, `operations[${i}]`);
      const op = fields.one('op', OPERATIONS);
      switch (op) {
        case 'attach':
          return {
            op,
            program: program(fields),
            fn: fn(fields),
            cookie: fields.maybe('cookie', 0, 0xffff_ffff),
            fail: fail(fields),
          };
        case 'detach':
          return { op, program: program(fields), fail: fail(fields) };
        case 'put':
          return { op, program: program(fields) };
        case 'reload':
        case 'foreign':
        case 'hold':
        case 'array':
          return { op, fn: fn(fields) };
        case 'livepatch':
          return { op, fn: fn(fields), fail: fail(fields) };
        case 'stats':
          return { op, zero: fields.flag('zero') };
        case 'fill': {
          const kind = fields.one('kind', ATTACH_KINDS);
          return { op, fn: fn(fields), kind, count: fields.whole('count', 1, MOST.fill) };
        }
        case 'empty':
          return { op, fn: fn(fields), keep: fields.whole('keep', 0, MOST.fill) };
      }
    }),
  };
}

/** What a freplace program does not do. */
function hasExtras({ sleepable, calls, asksIp, asksCookie }: ProgramSpec): boolean {
  return sleepable || calls !== null || asksIp || asksCookie;
}

const OPERATIONS = [
  'attach',
  'detach',
  'put',
  'reload',
  'stats',
  'foreign',
  'hold',
  'livepatch',
  'array',
  'fill',
  'empty',
] as const;

function parseSchedule(fields: Fields): ScheduleSpec {
  const weights = fields.child('weights');
  const names = Object.keys(WEIGHTS) as (keyof Weights)[];
  return {
    seed: fields.whole('seed', 0, 0xffff_ffff),
    slice: fields.whole('slice', 1, 100_000),
    host: fields.whole('host', 1, 1000),
    weights: Object.fromEntries(names.map((name) => [name, weights.whole(name, 1, 1000)])) as {
      [name in keyof Weights]: number;
    },
  };
}

/** Fields of an object from JSON, each of the kind that is asked for. */
class Fields {
  readonly #path: string;
  readonly #object: Readonly<Record<string, unknown>>;

  constructor(value: unknown, path: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new InputError('case', path, `must be an object, not ${JSON.stringify(value)}`);
    }
    this.#path = path;
    this.#object = value as Readonly<Record<string, unknown>>;
  }

  refuse(field: string, why: string): never {
    throw new InputError('case', `${this.#path}.${field}`, why);
  }

  child(field: string): Fields {
    return new Fields(this.#object[field], `${this.#path}.${field}`);
  }

  flag(field: string): boolean {
    return this.one(field, [true, false]);
  }

  one<T>(field: string, choices: readonly T[]): T {
    const found = choices.find((choice) => choice === this.#object[field]);
    if (found === undefined) {
      const there = choices.map((choice) => JSON.stringify(choice)).join(', ');
      this.refuse(field, `must be one of ${there}, not ${JSON.stringify(this.#object[field])}`);
    }
    return found;
  }

  whole(field: string, least: number, most: number): number {
    const value = this.#object[field];
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
      this.refuse(field, `must be a whole number from ${least} to ${most}, not ${JSON.stringify(value)}`);
    }
    return value;
  }

  maybe(field: string, least: number, most: number): number | null {
    return this.#object[field] === null ? null : this.whole(field, least, most);
  }

  list<T>(field: string, least: number, most: number, parse: (item: unknown, index: number) => T): T[] {
    const value = this.#object[field];
    if (!Array.isArray(value) || value.length < least || value.length > most) {
      this.refuse(field, `must be a list of ${least} to ${most} items`);
    }
    return value.map(parse);
  }
}
