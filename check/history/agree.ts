/*
 * Whether the kernel holds what the model says, now.
 */

import { NOP5, patchBytes, TrampFlag } from '../../jit/index.ts';
import { addrAdd, toHex } from '../../lib/index.ts';
import type { Kernel, TrampImage, Trampoline } from '../../tramp/index.ts';
import type { HistoryFinding } from './judge.ts';
import { LIST_KINDS, type TableModel } from './model.ts';
import type { LoadedProgram } from './record.ts';
import { siteBytes } from './state.ts';
import type { World, WorldFunction } from './world.ts';

/** What somebody else puts at a function's entry: a nop of five bytes that is not the kernel's. */
export const FOREIGN: Uint8Array = Uint8Array.of(0x0f, 0x1f, 0x44, 0x00, 0x01);

/** call rel32 */
const CALL = 0xe8;
const CALL_BYTES = 5;

/** Compares everything that can be seen while no operation is under way; the first difference. */
export function compare(world: World, model: TableModel<LoadedProgram>): HistoryFinding | undefined {
  const { kernel } = world;
  const live = new Set<TrampImage>();
  for (const fn of world.functions) {
    const tr = kernel.trampolines.find(fn.real.key);
    const finding = compareFunction(kernel, model, fn, tr) ?? compareText(world, fn, tr);
    if (finding !== undefined) return finding;
    if (tr?.curImage !== undefined) live.add(tr.curImage);
  }
  return compareImages(kernel, model, live) ?? comparePrograms(world) ?? compareWarnings(kernel, model);
}

/** Who keeps a function's module, calls of tasks aside. */
export function moduleHolders({ rules }: TableModel<LoadedProgram>, fn: WorldFunction): number {
  if (!rules.programsHold) return fn.image === undefined ? 0 : 1;
  return [...fn.holders].filter(({ real }) => !real.prog.freed).length;
}

function compareFunction(
  kernel: Kernel,
  model: TableModel<LoadedProgram>,
  fn: WorldFunction,
  tr: Trampoline | undefined,
): HistoryFinding | undefined {
  const same = (what: string, found: unknown, wanted: unknown): HistoryFinding | undefined =>
    found === wanted ? undefined : differs('table-agrees', `${what} of ${fn.name}`, found, wanted);
  const modules = moduleHolders(model, fn) + fn.callers;
  const direct = fn.isPlain ? undefined : kernel.ftrace.direct(fn.real.addr);
  const outside =
    same('presence in the table', tr !== undefined, fn.inTable) ??
    same("ftrace's call", direct, fn.isPlain ? undefined : tr?.curImage?.image) ??
    same('references to the module', fn.real.module.references, modules);
  if (outside !== undefined || tr === undefined) return outside;
  for (const kind of LIST_KINDS) {
    const [found, wanted] = [tr.links[kind], fn.lists[kind]].map((links) =>
      links
        .map(({ prog, cookie }) => `${prog.name}${cookie === 0n ? '' : ` with cookie ${cookie}`}`)
        .join(', '),
    );
    const finding = same(`${kind} programs`, found, wanted);
    if (finding !== undefined) return finding;
  }
  return (
    same('references to the trampoline', tr.references, fn.references) ??
    same('flags', tr.flags, flagsOf(model, fn) ?? tr.flags) ??
    same('replacement', tr.extension, fn.extension?.real.prog) ??
    same('image', tr.curImage?.ksym.name, fn.image?.name) ??
    same('number of the next image', tr.selector, fn.selector)
  );
}

/** Flags that a trampoline keeps; undefined where it keeps none, and without an image, when they are left as they were. */
function flagsOf({ rules }: TableModel<LoadedProgram>, { image, shares }: WorldFunction): number | undefined {
  if (!rules.keepsFlags || image === undefined) return undefined;
  const links = LIST_KINDS.flatMap((kind) => image.links[kind]);
  const { CALL_ORIG, IP_ARG, ORIG_STACK, RESTORE_REGS, SHARE_IPMODIFY, SKIP_FRAME } = TrampFlag;
  return (
    (image.callsFunction ? CALL_ORIG | SKIP_FRAME : RESTORE_REGS) |
    (links.some(({ prog }) => prog.spec.asksIp) ? IP_ARG : 0) |
    (image.byStack ? ORIG_STACK : 0) |
    (shares ? SHARE_IPMODIFY : 0)
  );
}

/** The bytes at the entry and behind it. */
function compareText(
  world: World,
  fn: WorldFunction,
  tr: Trampoline | undefined,
): HistoryFinding | undefined {
  const { addr } = fn.real;
  if (fn.patched) return comparePatched(world, fn);
  const wanted =
    tr?.curImage !== undefined
      ? patchBytes('CALL', addr, tr.curImage.image)
      : fn.extension !== undefined
        ? patchBytes('JUMP', addr, fn.extension.real.prog.bpfFunc)
        : fn.foreign
          ? FOREIGN
          : Uint8Array.from(NOP5);
  const found = siteBytes(world.kernel, addr);
  const expected = toHex(wanted ?? new Uint8Array());
  if (found !== expected) return differs('site-bytes', `entry of ${fn.name}`, found, expected);
  return compareCode(world, fn);
}

/** The site calls code of ftrace's for this function, which calls both. */
function comparePatched(world: World, fn: WorldFunction): HistoryFinding | undefined {
  const { machine, kallsyms } = world.kernel;
  const site = machine.memory.bytes(fn.real.addr, CALL_BYTES);
  const distance = new DataView(site.buffer, site.byteOffset + 1).getInt32(0, true);
  const hit = kallsyms.lookup(addrAdd(fn.real.addr, CALL_BYTES + distance));
  const wanted = `a call of ftrace_regs_caller (${fn.name})`;
  const found = site[0] === CALL && hit?.offset === 0 ? `a call of ${hit.ksym.name}` : toHex(site);
  return found === wanted
    ? compareCode(world, fn)
    : differs('site-bytes', `entry of ${fn.name}`, found, wanted);
}

function compareCode(world: World, fn: WorldFunction): HistoryFinding | undefined {
  const code = world.codeOf(fn.real);
  return code === fn.code
    ? undefined
    : differs('site-bytes', `code behind the entry of ${fn.name}`, code, fn.code);
}

function compareImages(
  kernel: Kernel,
  { rules }: TableModel<LoadedProgram>,
  live: ReadonlySet<TrampImage>,
): HistoryFinding | undefined {
  const { images, retired, modmem, kallsyms } = kernel;
  let room = 0;
  const same = (what: string, found: unknown, wanted: unknown): HistoryFinding | undefined =>
    found === wanted ? undefined : differs('table-agrees', what, found, wanted);
  for (const im of images) {
    const { name } = im.ksym;
    const symbol = kallsyms.lookup(im.image)?.ksym;
    room += rules.room(im.length);
    const finding =
      same(`symbol of ${name}`, symbol?.name, name) ??
      same(`bytes that the symbol of ${name} covers`, symbol?.sizeBytes, rules.room(im.length)) ??
      same(`life of ${name}`, im.state === 'live', live.has(im)) ??
      same(`retirement of ${name}`, retired.has(im), !live.has(im));
    if (finding !== undefined) return finding;
  }
  const symbols = kallsyms.list().filter(({ name }) => name.startsWith('bpf_trampoline_')).length;
  return same('bytes charged', modmem.bytes, room) ?? same('symbols of images', symbols, images.size);
}

function comparePrograms({ programs }: World): HistoryFinding | undefined {
  for (const { kind, name, places, real, isPut } of programs) {
    const links = real.prog.linkedBy.size;
    if (kind === 'freplace' || isPut || links === places) continue;
    return differs('table-agrees', `places that ${name} is attached in`, links, places);
  }
  return undefined;
}

/** Warnings that are due, and no others. */
export function compareWarnings(
  { warnings }: Kernel,
  model: TableModel<LoadedProgram>,
): HistoryFinding | undefined {
  if (warnings.length === model.warnings) return undefined;
  const seen = warnings.at(-1) ?? 'none';
  return { rule: 'warnings', detail: `${warnings.length} warnings, not ${model.warnings}: ${seen}` };
}

function differs(
  rule: 'table-agrees' | 'site-bytes',
  what: string,
  found: unknown,
  wanted: unknown,
): HistoryFinding {
  const [seen, expected] = [String(found), String(wanted)];
  return { rule, detail: `${what}: ${seen}, not ${expected}`, expected, seen };
}
