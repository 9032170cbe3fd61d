import type { Code } from '../jit/index.ts';
import { insnAt, stepPath } from '../jit/index.ts';
import { hex16, type Kaddr } from '../lib/index.ts';
import { type KernelBugs, NO_BUGS } from './bugs.ts';
import { Multimap } from './multimap.ts';

/** What kind of thing a symbol names: it decides which text may be poked how. */
export type KsymKind = 'kernel' | 'module' | 'bpf';

/** A named range of text. */
export interface Ksym {
  readonly name: string;
  readonly start: Kaddr;
  readonly sizeBytes: number;
  readonly kind: KsymKind;
  /** Name of the module that it belongs to. */
  readonly module?: string;
  /** What the emitter knows of the code, fetched when somebody asks. */
  readonly code?: () => Code | undefined;
}

/** A symbol that covers an address. */
export interface KsymHit {
  readonly ksym: Ksym;
  readonly offset: number;
}

const PAGE_SHIFT = 12n;
const page = (address: bigint): number => Number(address >> PAGE_SHIFT);

/**
 * The table of text symbols: by address and by name, for faults, listings and text pokes.
 * Adding, removing and looking up cost the same however many symbols there are.
 *
 * Kernel: kernel/kallsyms.c for kernel and module symbols, the bpf_ksym tree of kernel/bpf/core.c for images.
 */
export class Kallsyms {
  readonly #byPage = new Multimap<number, Ksym>();
  readonly #byName = new Multimap<string, Ksym>();
  /** How far behind its end a symbol reaches, bytes. */
  readonly #behind: bigint;

  constructor(bugs: KernelBugs = NO_BUGS) {
    this.#behind = bugs.has('T12') ? 1n : 0n;
  }

  add(ksym: Ksym): void {
    for (const key of pagesOf(ksym)) this.#byPage.add(key, ksym);
    this.#byName.add(ksym.name, ksym);
  }

  remove(ksym: Ksym): void {
    for (const key of pagesOf(ksym)) this.#byPage.remove(key, ksym);
    this.#byName.remove(ksym.name, ksym);
  }

  /** The symbol whose range holds the address. Kernel: kallsyms_lookup, bpf_ksym_find. */
  lookup(address: Kaddr): KsymHit | undefined {
    const ksym = this.#byPage
      .get(page(address))
      .find(({ start, sizeBytes }) => address >= start && address - start < BigInt(sizeBytes) + this.#behind);
    return ksym === undefined ? undefined : { ksym, offset: Number(address - ksym.start) };
  }

  /** The oldest symbol of that name. */
  named(name: string): Ksym | undefined {
    return this.#byName.get(name)[0];
  }

  /** Symbol, offset and, inside an image, the emitter's step: what a fault prints. */
  locate(address: Kaddr): { symbol: string; offset: number; step?: string } | undefined {
    const hit = this.lookup(address);
    if (hit === undefined) return undefined;
    const code = hit.ksym.code?.();
    const insn = code === undefined ? undefined : insnAt(code, hit.offset);
    const place = { symbol: hit.ksym.name, offset: hit.offset };
    return insn === undefined ? place : { ...place, step: stepPath(insn.step) };
  }

  /** `symbol+0x12`, or the bare symbol at its start; undefined when nothing covers the address. */
  nameOf(address: Kaddr): string | undefined {
    const hit = this.lookup(address);
    if (hit === undefined) return undefined;
    return hit.offset === 0 ? hit.ksym.name : `${hit.ksym.name}+0x${hit.offset.toString(16)}`;
  }

  /** All symbols by address. */
  list(): Ksym[] {
    return this.#byName.values().sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  }

  /** Lines as /proc/kallsyms prints them: address, type, name, and the module in brackets. */
  lines(): string[] {
    return this.list().map(({ name, start, kind, module }) => {
      const origin = kind === 'bpf' ? '\t[bpf]' : module === undefined ? '' : `\t[${module}]`;
      return `${hex16(start)} t ${name}${origin}`;
    });
  }
}

function pagesOf({ start, sizeBytes }: Ksym): number[] {
  const first = page(start);
  const count = page(start + BigInt(Math.max(sizeBytes, 1) - 1)) - first + 1;
  return Array.from({ length: count }, (_, i) => first + i);
}
