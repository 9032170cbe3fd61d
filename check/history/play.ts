/*
 * A case, played from its beginning to its end: tasks call, the host attaches and detaches, in the order
 * that the schedule draws. When all is over everything is taken away, what is left is counted, and what was
 * recorded is judged.
 */

import type { Fault, Machine } from '../../emu/index.ts';
import { BpfProg as ProgField, BpfProgStats as StatField, TaskStruct } from '../../jit/index.ts';
import { addrAdd } from '../../lib/index.ts';
import { RCU_FLAVOURS, Simulation, type Task, type TaskCall } from '../../tramp/index.ts';
import { compareWarnings } from './agree.ts';
import { type HistoryCase, TASK_ARGUMENT, type TaskSpec } from './case.ts';
import { Host } from './host.ts';
import { type HistoryFinding, judge } from './judge.ts';
import { type Ledger, leaked, type Taken } from './ledger.ts';
import { type Log, lowerHalf } from './log.ts';
import { observe } from './observe.ts';
import type { CallRecord, HistoryRecord, LoadedProgram, ProgramCounts } from './record.ts';
import type { World, WorldFunction } from './world.ts';

/** No right history has more events; one that has will not end. */
const MOST_EVENTS = 500_000;

/** What came of it. */
export interface Played {
  readonly findings: readonly HistoryFinding[];
  /** Calls that tasks made. */
  readonly calls: number;
  readonly marks: ReadonlySet<string>;
  readonly events: number;
  /** Milliseconds spent on judging what was recorded. */
  readonly judging: number;
  /** The last events in words, when they were kept. */
  readonly history: string;
  /** What is the same on every engine; undefined when the history did not come to its end. */
  readonly observed: () => readonly string[] | undefined;
}

/** The stage of a machine: what is there in each case. */
export interface Stage {
  readonly machine: Machine;
  readonly log: Log;
  readonly ledger: Ledger;
}

/** @param keep events to keep for a report; 0 is several times faster */
export function play(stage: Stage, world: World, one: HistoryCase, keep: number = 0): Played {
  return new Play(stage, world, one, keep).play();
}

class Play {
  readonly #stage: Stage;
  readonly #world: World;
  readonly #case: HistoryCase;
  readonly #sim: Simulation;
  readonly #host: Host;
  readonly #calls: CallRecord[] = [];
  readonly #before: Taken;
  #finding: HistoryFinding | undefined;
  #operated = 0;
  #judging = 0;
  #recorded: HistoryRecord | undefined;

  constructor(stage: Stage, world: World, one: HistoryCase, keep: number) {
    const { seed, slice, host, weights } = one.schedule;
    this.#stage = stage;
    this.#before = stage.ledger.taken;
    this.#world = world;
    this.#case = one;
    this.#sim = new Simulation(world.kernel, { seed, slice, hostWeight: host, weights, keep });
    this.#host = new Host(world, one, stage.log, stage.ledger);
    one.tasks.forEach((task, number) => {
      if (task.after === 0) this.#spawn(task, number);
    });
    for (const operation of one.operations) {
      this.#sim.host(operation.op, () => {
        this.#host.operate(operation);
        this.#operated++;
        one.tasks.forEach((task, number) => {
          if (task.after === this.#operated) this.#spawn(task, number);
        });
      });
    }
  }

  play(): Played {
    const before = this.#before;
    const counters = this.#world.guest.counters;
    const marks = new Set<string>();
    const findings = this.#through(() => {
      const over = this.#live() ?? this.#takeAway();
      if (over !== undefined) return [over];
      const record = this.#record();
      this.#recorded = record;
      const left = this.#putAll() ?? this.#left();
      if (left !== undefined) return [left];
      const more = leaked(
        { ...before, percpu: before.percpu + this.#world.guest.counters - counters },
        this.#stage.ledger.taken,
      );
      if (more !== '') return [{ rule: 'everything-given-back', detail: `${more} in the end` }];
      const begun = performance.now();
      const judgement = judge(record);
      this.#judging = performance.now() - begun;
      for (const mark of judgement.marks) marks.add(`call: ${mark}`);
      return judgement.findings;
    });
    for (const mark of this.#host.marks) marks.add(mark);
    return {
      findings,
      calls: this.#calls.length,
      marks,
      events: this.#sim.events,
      judging: this.#judging,
      history: this.#sim.history(),
      observed: () => (this.#recorded === undefined ? undefined : observe(this.#recorded)),
    };
  }

  /** An operation or a callback that throws has met a broken invariant of the manager's. */
  #through(run: () => readonly HistoryFinding[]): readonly HistoryFinding[] {
    try {
      return run();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      return [{ rule: 'broken-invariant', detail: `${error.name}: ${error.message}` }];
    }
  }

  // -- time ------------------------------------------------------------------------------------------------

  /** Lets everything happen that can; what went wrong first. */
  #live(): HistoryFinding | undefined {
    const limit = this.#sim.events + MOST_EVENTS;
    while (this.#sim.step()) {
      const found = this.#host.finding ?? this.#finding;
      if (found !== undefined) return found;
      if (this.#sim.events > limit) return { rule: 'terminates', detail: `${MOST_EVENTS} events and no end` };
    }
    const { fault } = this.#sim;
    return fault === undefined ? undefined : faultFinding(fault.fault, fault.task);
  }

  #takeAway(): HistoryFinding | undefined {
    this.#host.tearDown();
    return this.#host.finding ?? this.#live();
  }

  #putAll(): HistoryFinding | undefined {
    this.#host.putAll();
    return this.#live();
  }

  #spawn(spec: TaskSpec, number: number): void {
    const { log } = this.#stage;
    let made = 0;
    let inside: { readonly fn: WorldFunction; readonly call: CallRecord } | undefined;
    const next = (): TaskCall | undefined => {
      if (inside !== undefined) this.#returned(task, inside.fn, inside.call);
      inside = undefined;
      const index = spec.calls[made++];
      if (index === undefined) return undefined;
      const fn = this.#world.functions[index] as WorldFunction;
      const { module, addr } = fn.real;
      module.tryGet();
      fn.callers++;
      const args: [bigint, bigint] = [BigInt(number + 1), BigInt(TASK_ARGUMENT)];
      const call: CallRecord = {
        task: task.name,
        taskId: lowerHalf(task.struct),
        fn: index,
        args,
        version: fn.version,
        from: log.length,
        to: 0,
        result: 0n,
      };
      this.#calls.push(call);
      inside = { fn, call };
      const rest = Array.from({ length: fn.spec.args - args.length }, (_, i) => BigInt(i));
      return { fn: addr, args: [...args, ...rest], exiting: spec.exiting && made === spec.calls.length };
    };
    const task = this.#sim.spawn(`t${number}`, spec.cpu, next);
  }

  #returned(task: Task, fn: WorldFunction, call: CallRecord): void {
    call.to = this.#stage.log.length;
    call.result = task.results.pop() ?? 0n;
    fn.real.module.put();
    fn.callers--;
    const { rcuReadLockNesting: rcu, trcReaderNesting: trace, migrationDisabled } = task;
    const runCtx = this.#world.kernel.machine.memory.readU64(addrAdd(task.struct, TaskStruct.bpfCtx));
    if (rcu === 0 && trace === 0 && migrationDisabled === 0 && runCtx === 0n) return;
    const sections = `rcu depth ${rcu}, trace depth ${trace}, migration disabled ${migrationDisabled}`;
    const where = `${sections}, run_ctx 0x${runCtx.toString(16)}`;
    this.#finding ??= { rule: 'balanced', detail: `${task.name} comes back from ${fn.name} with ${where}` };
  }

  // -- the end ---------------------------------------------------------------------------------------------

  #record(): HistoryRecord {
    const { log } = this.#stage;
    const { kernel, functions, programs } = this.#world;
    const { retired, switches, zeroClocks } = this.#host;
    return {
      entries: Array.from({ length: log.length }, (_, i) => log.entry(i)),
      functions: functions.map(({ name, spec, versions }) => ({ name, spec, versions })),
      programs,
      calls: this.#calls,
      retired,
      switches,
      zeroClocks,
      counts: programs.filter(({ isPut }) => !isPut).map((program) => this.#counts(program)),
      splats: kernel.machine.cpus.reduce((sum, { id }) => sum + kernel.mightFaultSplats(id), 0),
      knowsIp: this.#case.revision !== 'v5.13',
      v6: this.#world.v6,
    };
  }

  #counts(program: LoadedProgram): ProgramCounts {
    const { cpus, memory, percpu } = this.#world.kernel.machine;
    const { prog } = program.real;
    const counters = cpus.map(({ id }) => prog.counters(id));
    const stats = Number(memory.readU64(addrAdd(prog.address, ProgField.stats)));
    const sequence = (cpu: number): number =>
      memory.readU32(addrAdd(percpu.address(stats, cpu), StatField.syncp));
    return {
      program,
      misses: counters.reduce((sum, { misses }) => sum + Number(misses), 0),
      runs: counters.reduce((sum, { runs }) => sum + Number(runs), 0),
      active: counters.map(({ active }) => active),
      odd: cpus.map(({ id }) => id).filter((id) => sequence(id) % 2 !== 0),
    };
  }

  /** What should not be there when everything was detached and put. */
  #left(): HistoryFinding | undefined {
    const { kernel, functions, programs } = this.#world;
    const warned = compareWarnings(kernel, this.#host.model);
    if (warned !== undefined) return warned;
    const left = (count: number, what: string): string[] => (count === 0 ? [] : [`${count} ${what}`]);
    const all = [
      ...left(kernel.images.size, 'images'),
      ...left(kernel.retired.size, 'retired images'),
      ...left(kernel.modmem.bytes, 'bytes charged'),
      ...left(this.#packsWanted(), 'packs for a pack full'),
      ...left(kernel.trampolines.list().length, 'trampolines'),
      ...left(programs.filter(({ real }) => !real.prog.freed).length, 'programs'),
      ...left(this.#sim.sched.tasks.length, 'tasks'),
      ...left(
        RCU_FLAVOURS.reduce((sum, name) => sum + kernel.grace.flavours[name].pending, 0),
        'callbacks',
      ),
      ...left(
        functions.reduce((sum, { real }) => sum + real.module.references, 0),
        'references to modules',
      ),
      ...left(
        kernel.kallsyms.list().filter(({ name }) => /^bpf_(trampoline|prog)_/.test(name)).length,
        'symbols of images and programs',
      ),
    ];
    if (all.length === 0) return undefined;
    return { rule: 'everything-given-back', detail: `${all.join(', ')} in the end` };
  }

  /** How many packs are made when as much room is asked for as one has: none, when everything in the first is free. */
  #packsWanted(): number {
    const { packBytes } = this.#host.model.rules;
    if (packBytes === undefined) return 0;
    const { ledger } = this.#stage;
    const before = ledger.taken.text;
    this.#world.kernel.imageMemory.alloc(packBytes, 'a pack full');
    return ledger.taken.text - before;
  }
}

/** The rule that a fault breaks, by what was touched. */
function faultFinding(fault: Fault, task: string): HistoryFinding {
  const detail = `${task}: ${fault.detail}`;
  // where images share memory, what was freed is int3 in mapped text, and the place says whose it was
  const isFreed = fault.kind === 'freed-image' || fault.detail.includes(' (freed)');
  if (isFreed) return { rule: 'freed-image', detail };
  const isProgram = fault.detail.includes('bpf_prog') && fault.detail.includes('is freed');
  return { rule: isProgram ? 'freed-program' : 'no-fault', detail };
}
