/*
 * What a kernel holds right now, as plain data: for tests, for JSON, and for people.
 */

import { hex16, hex64, type Kaddr } from '../lib/index.ts';
import type { ImageState, TrampImage } from './image.ts';
import type { KsymKind } from './kallsyms.ts';
import type { Kernel } from './kernel.ts';
import { type AttachKind, type BpfProg, PROG_KINDS, type ProgCounters, type ProgKind } from './prog.ts';
import type { RcuFlavourName } from './rcu.ts';

export interface KsymInfo {
  readonly name: string;
  readonly address: Kaddr;
  readonly sizeBytes: number;
  readonly kind: KsymKind;
  /** Null for text that belongs to no module. */
  readonly module: string | null;
}

export interface ProgInfo {
  readonly name: string;
  readonly kind: AttachKind;
  readonly sleepable: boolean;
  readonly linked: boolean;
  readonly references: number;
  /** One per CPU. */
  readonly counters: readonly ProgCounters[];
}

/** What keeps a retired image alive. */
export interface ImageWait {
  /** The grace period; null when it waits for the work queue or for calls in flight. */
  readonly flavour: RcuFlavourName | null;
  /** Tasks that hold up the grace period of that flavour that is under way. */
  readonly tasks: readonly string[];
}

export interface ImageInfo {
  readonly ksym: string;
  readonly address: Kaddr;
  /** Code, bytes. */
  readonly length: number;
  readonly state: ImageState;
  /** percpu_ref: its owner's until it is killed, and one for each call in flight. */
  readonly references: bigint;
  /** Null while something may still call it. */
  readonly waitsFor: ImageWait | null;
}

export interface TrampolineState {
  readonly key: bigint;
  /** Null before anybody named it. */
  readonly function: string | null;
  readonly references: number;
  /** Attached programs, newest first. */
  readonly progs: Readonly<Record<'fentry' | 'fmod_ret' | 'fexit', readonly string[]>>;
  /** The cookies of their links, in the same order: 0 before v6.1. */
  readonly cookies: Readonly<Record<'fentry' | 'fmod_ret' | 'fexit', readonly bigint[]>>;
  /** Flags that stay from one update to the next; 0 before v6.1. */
  readonly flags: number;
  readonly extension: string | null;
  /** Symbol of the image that the function calls. */
  readonly image: string | null;
  readonly selector: number;
}

export interface ModuleInfo {
  readonly name: string;
  readonly origin: 'module' | 'kernel';
  /** Trampolines that keep it loaded. */
  readonly references: number;
}

/** A kernel at one moment. */
export interface KernelReport {
  readonly trampolines: readonly TrampolineState[];
  readonly programs: readonly ProgInfo[];
  readonly images: readonly ImageInfo[];
  readonly modules: readonly ModuleInfo[];
  readonly ksyms: readonly KsymInfo[];
  /** Pages of executable memory charged to BPF; not a whole number where images share them. */
  readonly modmemPages: number;
  /** The same in bytes. */
  readonly modmemBytes: number;
  /** What WARN_ON printed, oldest first. */
  readonly warnings: readonly string[];
}

/** Reads everything; changes nothing. */
export function introspect(kernel: Kernel): KernelReport {
  return {
    trampolines: trampolines(kernel),
    programs: [...kernel.progs].map((prog) => progInfo(kernel, prog)),
    images: [...kernel.images].map((im) => imageInfo(kernel, im)),
    modules: kernel.modules.map(({ name, contents, references }) => ({
      name,
      origin: contents.origin,
      references,
    })),
    ksyms: kernel.kallsyms.list().map(({ name, start, sizeBytes, kind, module }) => ({
      name,
      address: start,
      sizeBytes,
      kind,
      module: module ?? null,
    })),
    modmemPages: kernel.modmem.pages,
    modmemBytes: kernel.modmem.bytes,
    warnings: [...kernel.warnings],
  };
}

function trampolines(kernel: Kernel): TrampolineState[] {
  return kernel.trampolines
    .list()
    .map(({ key, func, references, progs, links, flags, extension, curImage, selector }) => ({
      key,
      function: func?.model.name ?? null,
      references,
      progs: byKind((kind) => progs[kind].map(({ name }) => name)),
      cookies: byKind((kind) => links[kind].map(({ cookie }) => cookie)),
      flags,
      extension: extension?.name ?? null,
      image: curImage?.ksym.name ?? null,
      selector,
    }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
}

function byKind<T>(of: (kind: ProgKind) => T): Readonly<Record<ProgKind, T>> {
  return { fentry: of('fentry'), fmod_ret: of('fmod_ret'), fexit: of('fexit') };
}

function progInfo(kernel: Kernel, prog: BpfProg): ProgInfo {
  const { name, kind, sleepable, linked, references } = prog;
  const counters = kernel.machine.cpus.map(({ id }) => prog.counters(id));
  return { name, kind, sleepable, linked, references, counters };
}

function imageInfo(kernel: Kernel, im: TrampImage): ImageInfo {
  return {
    ksym: im.ksym.name,
    address: im.image,
    length: im.length,
    state: im.state,
    references: im.pcref.references(),
    waitsFor: im.state === 'live' ? null : imageWait(kernel, im),
  };
}

function imageWait(kernel: Kernel, im: TrampImage): ImageWait {
  const flavour = waitedFlavour(im);
  if (flavour === null) return { flavour, tasks: [] };
  const holdouts = kernel.grace.flavours[flavour].holdouts;
  return { flavour, tasks: holdouts.map((id) => taskName(kernel, id)) };
}

function waitedFlavour({ state, pcref }: TrampImage): RcuFlavourName | null {
  switch (state) {
    case 'rcu-tasks-trace':
      return 'rcu-tasks-trace';
    case 'rcu-tasks':
    case 'rcu-tasks-epilogue':
      return 'rcu-tasks';
    case 'percpu-ref':
      // Killed, but gets and puts that saw the old flags may still be under way.
      return pcref.state === 'dead' ? 'rcu' : null;
    default:
      return null;
  }
}

/** Tasks of the scheduler have positive ids; what a CPU started with has -1 - its number. */
function taskName(kernel: Kernel, id: number): string {
  if (id < 0) return `call on cpu${-1 - id}`;
  return kernel.scheduler?.tasks.find((task) => task.id === id)?.name ?? `task ${id}`;
}

/** As one JSON document: 64-bit values are hex strings. */
export function reportToJson(report: KernelReport): string {
  return JSON.stringify(
    report,
    (_key, value: unknown) => (typeof value === 'bigint' ? hex64(value) : value),
    2,
  );
}

/** As tables, for people. Kernel text is left out; `Kallsyms.lines` has it. */
export function formatReport(report: KernelReport): string {
  const { trampolines, programs, images, modules, ksyms, modmemPages, modmemBytes, warnings } = report;
  const parts = [
    table(
      ['trampoline', 'function', 'refs', 'image', ...PROG_KINDS, 'replaced by'],
      trampolines.map((tr) => [
        hex64(tr.key),
        tr.function ?? '-',
        String(tr.references),
        tr.image ?? '-',
        ...PROG_KINDS.map((kind) => progNames(tr, kind) || '-'),
        tr.extension ?? '-',
      ]),
    ),
    table(
      ['program', 'kind', 'refs', 'cpu', 'runs', 'ns', 'misses', 'active'],
      programs.flatMap(({ name, kind, sleepable, references, counters }) =>
        counters.map(({ runs, nsecs, misses, active }, cpu) => [
          name,
          sleepable ? `${kind}.s` : kind,
          String(references),
          String(cpu),
          ...[runs, nsecs, misses, active].map(String),
        ]),
      ),
    ),
    table(
      ['image', 'address', 'bytes', 'state', 'refs', 'waits for'],
      images.map(({ ksym, address, length, state, references, waitsFor }) => [
        ksym,
        hex16(address),
        String(length),
        state,
        String(references),
        waitsFor === null ? '-' : formatWait(state, waitsFor),
      ]),
    ),
    table(
      ['module', 'origin', 'refs'],
      modules.map(({ name, origin, references }) => [name, origin, String(references)]),
    ),
    table(
      ['symbol', 'address', 'bytes', 'module'],
      ksyms
        .filter(({ kind }) => kind !== 'kernel')
        .map(({ name, address, sizeBytes, module }) => [
          name,
          hex16(address),
          String(sizeBytes),
          module ?? '[bpf]',
        ]),
    ),
    Number.isInteger(modmemPages) ? `charged pages: ${modmemPages}` : `charged bytes: ${modmemBytes}`,
    ...warnings.map((text) => `WARNING: ${text}`),
  ];
  return `${parts.join('\n\n')}\n`;
}

/** Programs of a kind, each with its cookie if it has one. */
function progNames({ progs, cookies }: TrampolineState, kind: ProgKind): string {
  const cookie = (value: bigint = 0n): string => (value === 0n ? '' : `,cookie=0x${value.toString(16)}`);
  return progs[kind].map((name, i) => `${name}${cookie(cookies[kind][i])}`).join(' ');
}

function formatWait(state: ImageState, { flavour, tasks }: ImageWait): string {
  if (flavour === null) return state === 'work' ? 'the workqueue' : 'calls in flight';
  return tasks.length === 0 ? flavour : `${flavour}: ${tasks.join(', ')}`;
}

/** Left-aligned columns, two spaces apart. */
function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = heading.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => cell.padEnd(widths[i] as number))
      .join('  ')
      .trimEnd();
  return [heading, ...rows].map(line).join('\n');
}
