import { formatListing } from '../jit/index.ts';
import {
  type GlobalVariable,
  type Lab,
  type ProgramListing,
  type Seen,
  show,
  type TraceEvent,
} from '../lab/index.ts';
import { hex16, kaddr, toHex } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import { trampKind } from '../tramp/index.ts';
import { columns } from './columns.ts';
import type { Called, ProgramRow } from './outcome.ts';
import { paint } from './paint.ts';

/*
 * What `tramplab run` prints for people, piece by piece. A piece is text without a newline at its end.
 */

/** The image of a traced function, under a heading. */
export function imageListing(lab: Lab, fn: string): string {
  const info = lab.trampolines().find((candidate) => candidate.function === fn);
  const heading = `${info?.ksym}: ${fn}, ${info?.length} bytes, ${lab.kernel.revision}`;
  return `${paint('heading', heading)}\n\n${formatListing(lab.listing(fn), paint)}`;
}

/** A function of an eBPF program: source lines, eBPF instructions, what they became. */
export function programListing({ ksym, length, parts }: ProgramListing): string {
  const rows = parts.flatMap((part) => part.rows);
  const width = Math.max(0, ...rows.map(({ bytes }) => bytes.length));
  const lines = parts.flatMap(({ source, text, rows: made }) => [
    ...(source === undefined ? [] : [paint('heading', `; ${source.text.trim()}  (line ${source.line})`)]),
    `  ${paint('step', text)}`,
    ...made.map(({ address, bytes, instruction, note }) =>
      `    ${paint('address', hex16(address))}  ${paint('bytes', bytes.padEnd(width))}  ${instruction.padEnd(40)}${paint('note', note)}`.trimEnd(),
    ),
  ]);
  return [paint('heading', `${ksym}: ${length} bytes`), '', ...lines, ''].join('\n');
}

/** What programs printed; empty when they did not. */
export function logText(lines: readonly string[]): string {
  return lines.length === 0 ? '' : [paint('heading', 'trace log'), ...lines].join('\n');
}

/** One executed instruction: address, place, instruction, the emitter's step. */
export function traceLine({ address, place, instruction, step }: TraceEvent): string {
  const cells = [hex16(address), (place ?? '').padEnd(34), instruction.padEnd(38), paint('step', step ?? '')];
  return `  ${cells.join('  ')}`.trimEnd();
}

/** A call as it was written, its result, and what each program saw of it. */
export function callText(lab: Lab, { text, report }: Called, model: FuncModel | undefined): string {
  const { fault, instructions, ret, seen } = report;
  const call = `${text.fn}(${text.written.join(', ')})`;
  const result = ret === null ? '' : ` = ${resultText(lab, ret, model)}`;
  const count = instructions === 1 ? '1 instruction' : `${instructions} instructions`;
  const heading =
    fault === null
      ? `${paint('heading', `${call}${result}`)}  (${count})`
      : paint('heading', `${call} faulted: ${fault.kind}`);
  const lines = columns(seen.map(seenCells));
  if (fault !== null) lines.push(fault.detail);
  return [heading, ...lines.map((line) => `  ${line}`)].join('\n');
}

/** A result at its type; a text that it points to is shown with it. */
function resultText(lab: Lab, ret: bigint, model: FuncModel | undefined): string {
  if (model === undefined) return `0x${ret.toString(16)}`;
  const value = show(model.ret, ret);
  if (!/^(const )?char \*$/.test(model.ret.type)) return value;
  const text = lab.readText(kaddr(ret));
  return text === undefined ? value : `${value} ${JSON.stringify(text)}`;
}

/** Kind, program, what it saw, what came of it. Programs of calls that programs made are indented. */
function seenCells(run: Seen): string[] {
  const { kind, prog, target, depth, args, ret, model, cookie } = run;
  const values = model.args.map((arg, i) => `${arg.name ?? `arg${i}`}=${show(arg, args[i] ?? 0n)}`);
  const result = trampKind(kind, model) === 'fexit' && ret !== undefined ? ` = ${show(model.ret, ret)}` : '';
  const name = kind + (prog.sleepable ? '.s' : '');
  return [
    `${'  '.repeat(depth)}${name}`,
    cookie === 0n ? prog.name : `${prog.name} cookie=0x${cookie.toString(16)}`,
    `${target}(${values.join(', ')})${result}`,
    verdict(run),
  ];
}

/** What a program returned, where that matters. */
function verdict({ kind, model, returned }: Seen): string {
  if (returned === undefined) return 'did not return';
  const value = BigInt.asIntN(64, returned);
  const role = trampKind(kind, model);
  if (role === 'replace') return `returned ${show(model.ret, returned)} in its place`;
  if (role === 'fmod_ret') return value === 0n ? 'returned 0' : `returned ${value}: original skipped`;
  return value === 0n ? '' : `returned ${value}, which is ignored`;
}

/** All attached programs with their counters; empty without any. */
export function programTable(rows: readonly ProgramRow[]): string {
  const cookies = rows.some(({ cookie }) => cookie !== '0x0');
  const head = ['kind', 'program', 'function', 'runs', 'misses', ...(cookies ? ['cookie'] : [])];
  const cells = rows.map(({ kind, name, target, runs, misses, cookie }) => [
    kind,
    name,
    target,
    String(runs),
    String(misses),
    ...(cookies ? [cookie] : []),
  ]);
  return table(head, cells, [3, 4, 5]);
}

/** All variables of program objects with their values; empty without any. */
export function globalTable(variables: readonly GlobalVariable[]): string {
  return table(
    ['variable', 'value'],
    variables.map((variable) => [variable.name, valueText(variable)]),
  );
}

function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  right: readonly number[] = [],
): string {
  const [heading = '', ...lines] = columns([head, ...rows], { right });
  return rows.length === 0 ? '' : [paint('heading', heading), ...lines].join('\n');
}

/** Columns that a value may take before it is cut. */
const MAX_VALUE = 96;

function valueText({ bytes, scalar, isArray }: GlobalVariable): string {
  if (scalar === undefined) return cut(toHex(bytes));
  const element = scalar.sizeBytes;
  const values = Array.from({ length: bytes.length / element }, (_, i) => {
    const word = bytes.slice(i * element, (i + 1) * element).toReversed();
    return show(scalar, BigInt(`0x${toHex(word)}`));
  });
  return isArray ? cut(`{${values.join(', ')}}`) : values.join();
}

function cut(text: string): string {
  return text.length <= MAX_VALUE ? text : `${text.slice(0, MAX_VALUE - 3)}...`;
}
