/*
 * Whether the kernel holds what the model says, now.
 */

import { NOP5, patchBytes } from '../../jit/index.ts';
import { toHex } from '../../lib/index.ts';
import type { Kernel, TrampImage, Trampoline } from '../../tramp/index.ts';
import type { HistoryFinding } from './judge.ts';
import { LIST_KINDS, type TableModel } from './model.ts';
import type { LoadedProgram } from './record.ts';
import { siteBytes } from './state.ts';
import type { World, WorldFunction } from './world.ts';

/** What somebody else puts at a function's entry: a nop of five bytes that is not the kernel's. */
export const FOREIGN: Uint8Array = Uint8Array.of(0x0f, 0x1f, 0x44, 0x00, 0x01);

/** Compares everything that can be seen while no operation is under way; the first difference. */
export function compare(world: World, model: TableModel<LoadedProgram>): HistoryFinding | undefined {
  const { kernel } = world;
  const live = new Set<TrampImage>();
  for (const fn of world.functions) {
    const tr = kernel.trampolines.find(fn.real.key);
    const finding = compareFunction(kernel, fn, tr) ?? compareText(world, fn, tr);
    if (finding !== undefined) return finding;
    if (tr?.curImage !== undefined) live.add(tr.curImage);
  }
  return compareImages(kernel, live) ?? comparePrograms(world) ?? compareWarnings(kernel, model);
}

function compareFunction(
  kernel: Kernel,
  fn: WorldFunction,
  tr: Trampoline | undefined,
): HistoryFinding | undefined {
  const same = (what: string, found: unknown, wanted: unknown): HistoryFinding | undefined =>
    found === wanted ? undefined : differs('table-agrees', `${what} of ${fn.name}`, found, wanted);
  const modules = (fn.image === undefined ? 0 : 1) + fn.callers;
  const direct = fn.isPlain ? undefined : kernel.ftrace.direct(fn.real.addr);
  const outside =
    same('presence in the table', tr !== undefined, fn.inTable) ??
    same("ftrace's call", direct, fn.isPlain ? undefined : tr?.curImage?.image) ??
    same('references to the module', fn.real.module.references, modules);
  if (outside !== undefined || tr === undefined) return outside;
  for (const kind of LIST_KINDS) {
    const names = tr.progs[kind].map(({ name }) => name).join(', ');
    const finding = same(`${kind} programs`, names, fn.lists[kind].map(({ name }) => name).join(', '));
    if (finding !== undefined) return finding;
  }
  return (
    same('references to the trampoline', tr.references, fn.references) ??
    same('replacement', tr.extension, fn.extension?.real.prog) ??
    same('image', tr.curImage?.ksym.name, fn.image?.name) ??
    same('number of the next image', tr.selector, fn.selector)
  );
}

/** The bytes at the entry and behind it. */
function compareText(
  world: World,
  fn: WorldFunction,
  tr: Trampoline | undefined,
): HistoryFinding | undefined {
  const { addr } = fn.real;
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
  const code = world.codeOf(fn.real);
  return code === fn.code
    ? undefined
    : differs('site-bytes', `code behind the entry of ${fn.name}`, code, fn.code);
}

function compareImages(kernel: Kernel, live: ReadonlySet<TrampImage>): HistoryFinding | undefined {
  const { images, retired, modmem, kallsyms } = kernel;
  const same = (what: string, found: unknown, wanted: unknown): HistoryFinding | undefined =>
    found === wanted ? undefined : differs('table-agrees', what, found, wanted);
  for (const im of images) {
    const { name } = im.ksym;
    const finding =
      same(`symbol of ${name}`, kallsyms.lookup(im.image)?.ksym.name, name) ??
      same(`life of ${name}`, im.state === 'live', live.has(im)) ??
      same(`retirement of ${name}`, retired.has(im), !live.has(im));
    if (finding !== undefined) return finding;
  }
  const symbols = kallsyms.list().filter(({ name }) => name.startsWith('bpf_trampoline_')).length;
  return same('pages charged', modmem.pages, images.size) ?? same('symbols of images', symbols, images.size);
}

function comparePrograms({ programs }: World): HistoryFinding | undefined {
  for (const { kind, name, at, real, isPut } of programs) {
    if (kind === 'freplace' || isPut || real.prog.linked === (at !== undefined)) continue;
    return differs('table-agrees', `whether ${name} is attached`, real.prog.linked, at !== undefined);
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
