import process from 'node:process';
import type { Command } from 'commander';
import type { CallReport, Lab, TraceEvent } from '../lab/index.ts';
import { InputError } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import { type CallText, parseCall } from './call-text.ts';
import { runDocument } from './document.ts';
import { Exit } from './exit.ts';
import { stringify } from './fields.ts';
import { type Called, globalsOf, programRows } from './outcome.ts';
import {
  callText,
  globalTable,
  imageListing,
  logText,
  programListing,
  programTable,
  traceLine,
} from './page.ts';
import { addTargetOptions, gather, openLab, positive, type TargetOptions } from './target-options.ts';

interface RunOptions extends TargetOptions {
  readonly call?: readonly string[];
  readonly cpu: string;
  readonly steps: string;
  readonly trace?: boolean;
  readonly listing?: boolean;
  readonly json?: boolean;
}

/** `tramplab run`: the main job. */
export function addRun(program: Command): Command {
  const command = program
    .command('run')
    .summary('load a target, attach programs, call its functions, show what happened')
    .argument('[TARGET]', 'ELF64 x86-64 object or static executable with traced functions');
  return addTargetOptions(command)
    .option(
      '--call <call>',
      'call a function (repeatable, in order): \'f(1, -2, 0xffff)\'; &"text" and &hex:0011 make memory for the call',
      gather,
    )
    .option('--cpu <n>', 'CPU that the calls run on, from 0', '0')
    .option('--steps <n>', 'instructions after which a call is stopped', '1000000')
    .option('--trace', 'every instruction, with the emitter step that made it')
    .option('--listing', 'annotated listing of every image and every eBPF program')
    .option('--json', 'one JSON document on standard output')
    .addHelpText(
      'after',
      `
Examples:
  tramplab run demo.o --attach fentry:schedule_coffee=probes.o:coffee_entry --call 'schedule_coffee(2, 1, 5)'
  tramplab run demo.o --bpf probe.bpf.o --call 'schedule_coffee(2, 1, 5)'`,
    )
    .action(async (target: string | undefined, options: RunOptions) => {
      process.exitCode = await run(target, options);
    });
}

async function run(target: string | undefined, options: RunOptions): Promise<number> {
  const calls = (options.call ?? []).map(parseCall);
  const steps = positive('--steps', options.steps);
  const cpu = Number(options.cpu);
  if (!/^\d+$/.test(options.cpu)) throw new InputError('--cpu', undefined, `${options.cpu} is no CPU number`);
  const wants = { trace: options.trace === true, listing: options.listing === true };
  const { lab, objects } = await openLab(target, options);
  try {
    const call = (text: CallText, onInstruction?: (event: TraceEvent) => void): CallReport =>
      lab.call(text.fn, text.args, {
        cpu,
        steps,
        watch: true,
        ...(onInstruction === undefined ? {} : { onInstruction }),
      });
    const called: Called[] = [];
    if (options.json === true) {
      for (const text of calls) {
        const trace: TraceEvent[] = [];
        const report = call(text, wants.trace ? (event) => trace.push(event) : undefined);
        called.push({ text, report, trace });
      }
      console.log(stringify(runDocument(lab, objects, called, { engine: options.engine, ...wants })));
    } else {
      if (wants.listing) printListings(lab);
      for (const text of calls) {
        // Printed as it happens: a trace may be long.
        const report = call(text, wants.trace ? (event) => console.log(traceLine(event)) : undefined);
        const done = { text, report, trace: [] };
        called.push(done);
        console.log(callText(lab, done, modelOf(lab, text.fn)));
      }
      const tables = [
        programTable(programRows(lab, called)),
        globalTable(globalsOf(objects)),
        logText(lab.log),
      ];
      for (const text of tables.filter((piece) => piece !== '')) console.log(`\n${text}`);
    }
    return called.some(({ report }) => report.fault !== null) ? Exit.FINDING : Exit.FINE;
  } finally {
    lab.close();
  }
}

function printListings(lab: Lab): void {
  for (const { function: fn } of lab.trampolines()) console.log(imageListing(lab, fn));
  for (const object of lab.bpf) {
    for (const name of object.programs.keys()) {
      for (const listing of object.listing(name)) console.log(programListing(listing));
    }
  }
}

function modelOf(lab: Lab, fn: string): FuncModel | undefined {
  try {
    return lab.model(fn);
  } catch (error) {
    if (error instanceof InputError) return undefined;
    throw error;
  }
}
