import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  GracePeriods,
  RCU_FLAVOURS,
  RcuFlavour,
  type RcuFlavourName,
  type RcuTask,
} from '../../tramp/index.ts';

type State = { -readonly [K in keyof RcuTask]: RcuTask[K] };

const idle = (id: number): State => ({
  id,
  onRq: false,
  inKernel: false,
  voluntarySwitches: 0,
  rcuReadLockNesting: 0,
  trcReaderNesting: 0,
});

/** What makes a task hold up a flavour, and what lets go, each in one change. */
const BLOCK: Readonly<Record<RcuFlavourName, (task: State) => void>> = {
  rcu: (task) => {
    task.rcuReadLockNesting = 1;
  },
  'rcu-tasks': (task) => {
    task.onRq = true;
    task.inKernel = true;
  },
  'rcu-tasks-trace': (task) => {
    task.trcReaderNesting = 1;
  },
};

describe.each(RCU_FLAVOURS)('%s', (name) => {
  test('a callback runs after one look when nobody is in the way', () => {
    const flavour = new RcuFlavour(name);
    const ran: number[] = [];
    flavour.call(() => ran.push(1));
    flavour.call(() => ran.push(2));
    expect([flavour.run(), flavour.pending]).toEqual([false, 2]);
    flavour.tick([idle(1)]);
    expect([flavour.run(), flavour.run(), flavour.run()]).toEqual([true, true, false]);
    expect([ran, flavour.pending]).toEqual([[1, 2], 0]);
  });

  test('waits for a task that was in the way at the start, and for no later one', () => {
    const flavour = new RcuFlavour(name);
    const [early, late] = [idle(1), idle(2)];
    BLOCK[name](early);
    flavour.call(() => undefined);
    flavour.tick([early, late]);
    expect(flavour.holdouts).toEqual([1]);
    BLOCK[name](late);
    flavour.tick([early, late]);
    expect([flavour.holdouts, flavour.ready]).toEqual([[1], 0]);
    flavour.tick([idle(1), late]);
    expect([flavour.holdouts, flavour.ready]).toEqual([[], 1]);
  });

  test('a callback that arrives during a grace period waits for the next', () => {
    const flavour = new RcuFlavour(name);
    const [first, second] = [idle(1), idle(2)];
    BLOCK[name](first);
    flavour.call(() => undefined);
    flavour.tick([first, second]);
    BLOCK[name](second);
    flavour.call(() => undefined);
    flavour.tick([idle(1), second]);
    expect([flavour.ready, flavour.pending]).toEqual([1, 2]);
    flavour.run();
    flavour.tick([idle(1), second]);
    expect([flavour.ready, flavour.holdouts]).toEqual([0, [2]]);
    flavour.tick([idle(1), idle(2)]);
    expect(flavour.ready).toBe(1);
  });

  test('a task that is gone holds nothing up', () => {
    const flavour = new RcuFlavour(name);
    const task = idle(1);
    BLOCK[name](task);
    flavour.call(() => undefined);
    flavour.tick([task]);
    flavour.tick([]);
    expect(flavour.ready).toBe(1);
  });

  test.each([true, false])('preemption %s: never early, in order, and in the end', (preemption) => {
    const rule = preemption || name !== 'rcu' ? name : 'rcu-tasks';
    const quiet = (task: State): boolean =>
      rule === 'rcu'
        ? task.rcuReadLockNesting === 0
        : rule === 'rcu-tasks'
          ? !task.onRq || !task.inKernel
          : task.trcReaderNesting === 0;
    const who = fc.nat({ max: 3 });
    const event = fc.oneof(
      { weight: 3, arbitrary: fc.record({ do: fc.constant('call' as const) }) },
      { weight: 4, arbitrary: fc.record({ do: fc.constant('tick' as const) }) },
      { weight: 4, arbitrary: fc.record({ do: fc.constant('run' as const) }) },
      fc.record({ do: fc.constant('lock' as const), who, by: fc.constantFrom(1, -1) }),
      fc.record({ do: fc.constant('trace' as const), who, by: fc.constantFrom(1, -1) }),
      fc.record({ do: fc.constant('kernel' as const), who }),
      fc.record({ do: fc.constant('queue' as const), who }),
      fc.record({ do: fc.constant('switch' as const), who }),
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 120 }), (events) => {
        const flavour = new RcuFlavour(name, preemption);
        const tasks = [0, 1, 2, 3].map(idle);
        // For each callback the tasks that have been in the way without a pause since it was handed in.
        const waiting: Set<number>[] = [];
        let ran = 0;
        const passed = (id: number): void => {
          for (const since of waiting) since.delete(id);
        };
        const callback = (): void => {
          const since = new Set(tasks.filter((task) => !quiet(task)).map(({ id }) => id));
          const number = waiting.push(since) - 1;
          flavour.call(() => {
            expect(number).toBe(ran++);
            expect([...since]).toEqual([]);
          });
        };
        for (const step of events) {
          switch (step.do) {
            case 'call':
              callback();
              break;
            case 'tick':
              flavour.tick(tasks);
              break;
            case 'run':
              flavour.run();
              break;
            default: {
              const task = tasks[step.who] as State;
              if (step.do === 'lock')
                task.rcuReadLockNesting = Math.max(0, task.rcuReadLockNesting + step.by);
              if (step.do === 'trace') task.trcReaderNesting = Math.max(0, task.trcReaderNesting + step.by);
              if (step.do === 'kernel') task.inKernel = !task.inKernel;
              if (step.do === 'queue') task.onRq = !task.onRq;
              if (step.do === 'switch') {
                task.voluntarySwitches++;
                if (rule === 'rcu-tasks') passed(task.id);
              }
              if (quiet(task)) passed(task.id);
            }
          }
        }
        // Once nobody is in the way, two looks are enough: one for the period under way, one for the next.
        const still = tasks.map(({ id, voluntarySwitches }) => ({ ...idle(id), voluntarySwitches }));
        for (const since of waiting) since.clear();
        for (let look = 0; look < 2; look++) flavour.tick(still);
        while (flavour.run());
        expect([ran, flavour.pending]).toEqual([waiting.length, 0]);
      }),
    );
  });
});

test('going to sleep by itself ends a task for rcu-tasks, even when it is back at once', () => {
  const flavour = new RcuFlavour('rcu-tasks');
  const task = idle(1);
  BLOCK['rcu-tasks'](task);
  flavour.call(() => undefined);
  flavour.tick([task]);
  expect(flavour.ready).toBe(0);
  task.voluntarySwitches++;
  flavour.tick([task]);
  expect(flavour.ready).toBe(1);
});

test('settle follows callbacks into each other and into work, and says whether anything happened', () => {
  const task = idle(1);
  const grace = new GracePeriods(() => [task]);
  const ran: string[] = [];
  expect(grace.settle()).toBe(false);
  grace.callRcuTasksTrace(() => {
    ran.push('trace');
    grace.callRcuTasks(() => {
      ran.push('tasks');
      grace.callRcu(() => {
        ran.push('rcu');
        grace.scheduleWork(() => ran.push('work'));
      });
    });
  });
  BLOCK['rcu-tasks'](task);
  expect(grace.settle()).toBe(true);
  expect(ran).toEqual(['trace']);
  expect(grace.settle()).toBe(false);
  Object.assign(task, idle(1));
  grace.settle();
  expect(ran).toEqual(['trace', 'tasks', 'rcu', 'work']);
  expect(grace.pendingWork).toBe(0);
});
