import process from 'node:process';
import type { Command } from 'commander';
import { formatListing } from '../jit/index.ts';
import {
  type Attachment,
  type CallReport,
  type Lab,
  type ProgramObject,
  type Seen,
  show,
  type TraceEvent,
} from '../lab/index.ts';
import { hex16, InputError, toHex } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import { parseCall } from './call-text.ts';
import { Exit } from './exit.ts';
import { stringify } from './json-lines.ts';
import { paint } from './paint.ts';
import { addTargetOptions, openLab, positive, type TargetOptions } from './target-options.ts';

interface RunOptions extends TargetOptions {
  readonly call: readonly string[];
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
      (value: string, previous: readonly string[]) => [...previous, value],
      [],
    )
    .option('--cpu <n>', 'CPU that the calls run on, from 0', '0')
    .option('--steps <n>', 'instructions after which a call is stopped', '1000000')
    .option('--trace', 'every instruction, with the emitter step that made it')
    .option('--listing', 'annotated listing of every image')
    .option('--json', 'one JSON document on standard output')
    .addHelpText(
      'after',
      `
Example:
  tramplab run demo.o --attach fentry:schedule_coffee=probes.o:coffee_entry --call 'schedule_coffee(2, 1, 5)'`,
    )
    .action(async (target: string | undefined, options: RunOptions) => {
      process.exitCode = await run(target, options);
    });
}

/** A call and, when asked for, the instructions it took. */
interface Called {
  readonly report: CallReport;
  readonly trace: readonly TraceEvent[];
}

async function run(target: string | undefined, options: RunOptions): Promise<number> {
  const calls = options.call.map(parseCall);
  const steps = positive('--steps', options.steps);
  const cpu = Number(options.cpu);
  if (!/^\d+$/.test(options.cpu)) throw new InputError('--cpu', undefined, `${options.cpu} is no CPU number`);
  const { lab, objects } = await openLab(target, options);
  try {
    const called = calls.map(({ fn, args }): Called => {
      const trace: TraceEvent[] = [];
      const traced =
        options.trace === true ? { onInstruction: (event: TraceEvent) => trace.push(event) } : {};
      return { report: lab.call(fn, args, { cpu, steps, watch: true, ...traced }), trace };
    });
    if (options.json === true) console.log(stringify(document(lab, objects, called, options)));
    else console.log(page(lab, objects, called, options));
    return called.some(({ report }) => report.fault !== null) ? Exit.FINDING : Exit.FINE;
  } finally {
    lab.close();
  }
}

// -- for machines -------------------------------------------------------------------------------

function document(
  lab: Lab,
  objects: readonly ProgramObject[],
  called: readonly Called[],
  options: RunOptions,
): Record<string, unknown> {
  return {
    revision: lab.kernel.revision,
    engine: options.engine,
    calls: called.map(({ report, trace }) => ({
      function: report.function,
      args: report.args,
      ret: report.ret,
      instructions: report.instructions,
      fault: faultOf(report),
      seen: report.seen.map(({ program, kind, target: traced, depth, args, ret, returned }) => ({
        program,
        kind,
        target: traced,
        depth,
        args,
        ret: ret ?? null,
        returned: returned ?? null,
      })),
      ...(options.trace === true ? { trace } : {}),
    })),
    programs: programs(lab, called),
    globals: globals(lab, objects),
    trampolines: lab.trampolines().map((info) => ({
      ...info,
      bytes: toHex(info.bytes),
      ...(options.listing === true ? { listing: lab.listing(info.function) } : {}),
    })),
    log: [],
  };
}

function faultOf({ fault }: CallReport): Record<string, unknown> | null {
  if (fault === null) return null;
  const { kind, rip, step, detail, address, symbol, cpu } = fault;
  return { kind, rip, step: step ?? null, detail, address: address ?? null, symbol: symbol ?? null, cpu };
}

interface ProgramRow {
  readonly name: string;
  readonly kind: string;
  readonly target: string;
  readonly runs: number;
  readonly misses: number;
  readonly cookie: string;
}

/** Runs are counted by watching, so that counting changes no instruction; misses are the kernel's own counter. */
function programs(lab: Lab, called: readonly Called[]): ProgramRow[] {
  const seen = called.flatMap(({ report }) => report.seen);
  return lab.attachments().map(({ prog, function: target }: Attachment) => ({
    name: prog.name,
    kind: prog.kind + (prog.sleepable ? '.s' : ''),
    target,
    runs: seen.filter((run) => run.prog === prog).length,
    misses: Number(lab.machine.cpus.reduce((sum, { id }) => sum + prog.counters(id).misses, 0n)),
    cookie: '0x0',
  }));
}

/** Variables of the program objects: integers by value, everything else as hex bytes. */
function globals(lab: Lab, objects: readonly ProgramObject[]): Record<string, string> {
  const all = objects.flatMap((object) => [...object.globals(lab.kernel)]);
  return Object.fromEntries(
    all.map(([name, bytes]) => {
      if (![1, 2, 4, 8].includes(bytes.length)) return [name, toHex(bytes)];
      return [name, `0x${BigInt(`0x${toHex(bytes.toReversed())}`).toString(16)}`];
    }),
  );
}

// -- for people ---------------------------------------------------------------------------------

function page(
  lab: Lab,
  objects: readonly ProgramObject[],
  called: readonly Called[],
  options: RunOptions,
): string {
  const lines: string[] = [];
  if (options.listing === true) {
    for (const info of lab.trampolines()) {
      lines.push(
        paint('heading', `${info.ksym}: ${info.function}, ${info.length} bytes, ${lab.kernel.revision}`),
        '',
      );
      lines.push(formatListing(lab.listing(info.function), paint));
    }
  }
  for (const { report, trace } of called) {
    const model = modelOf(lab, report.function);
    for (const { address, place, instruction, step } of trace) {
      const where = (place ?? '').padEnd(36);
      lines.push(`  ${hex16(address)}  ${where}  ${instruction.padEnd(36)}  ${step ?? ''}`.trimEnd());
    }
    lines.push(...callLines(report, model));
  }
  const rows = programs(lab, called);
  if (rows.length > 0) {
    lines.push('', paint('heading', 'programs'));
    for (const { name, kind, target, runs, misses } of rows) {
      lines.push(
        `  ${kind.padEnd(10)} ${name.padEnd(24)} ${target.padEnd(20)} ${runs} runs, ${misses} misses`,
      );
    }
  }
  const variables = Object.entries(globals(lab, objects));
  if (variables.length > 0) {
    lines.push('', paint('heading', 'globals'));
    for (const [name, value] of variables) lines.push(`  ${name.padEnd(24)} ${value}`);
  }
  return lines.join('\n');
}

function callLines(report: CallReport, model: FuncModel | undefined): string[] {
  const args = report.args.map((word, i) => {
    const arg = model?.args[i];
    return arg === undefined ? `0x${word.toString(16)}` : show(arg, word);
  });
  const result = report.fault === null ? shownResult(report, model) : ` faulted: ${report.fault.detail}`;
  const call = `${report.function}(${args.join(', ')})${result}`;
  return [paint('heading', call), `  ${report.instructions} instructions`, ...report.seen.map(seenLine)];
}

function shownResult({ ret }: CallReport, model: FuncModel | undefined): string {
  if (ret === null) return '';
  return ` = ${model === undefined ? `0x${ret.toString(16)}` : show(model.ret, ret)}`;
}

function seenLine({ prog, kind, target, depth, args, ret, returned, model }: Seen): string {
  const values = model.args.map((arg, i) => `${arg.name ?? `arg${i}`}=${show(arg, args[i] as bigint)}`);
  if (ret !== undefined) values.push(`ret=${show(model.ret, ret)}`);
  const indent = '  '.repeat(depth + 1);
  const back = returned === undefined ? 'did not return' : `returned ${BigInt.asIntN(64, returned)}`;
  return `${indent}${kind.padEnd(9)} ${prog.name.padEnd(22)} ${target}(${values.join(', ')})  ${back}`;
}

function modelOf(lab: Lab, fn: string): FuncModel | undefined {
  try {
    return lab.model(fn);
  } catch (error) {
    if (error instanceof InputError) return undefined;
    throw error;
  }
}
