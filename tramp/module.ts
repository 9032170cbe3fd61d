import { Bug, type Kaddr, KernelError } from '../lib/index.ts';
import type { FtraceSite, LinkedSymbol } from '../obj/index.ts';
import type { Ksym } from './kallsyms.ts';
import type { Kernel } from './kernel.ts';
import { Multimap } from './multimap.ts';

/** What a module consists of, once it is in memory. */
export interface ModuleContents {
  readonly name: string;
  /** Ranges of executable memory. */
  readonly text: readonly { readonly address: Kaddr; readonly sizeBytes: number }[];
  /** All defined symbols. */
  readonly symbols: readonly LinkedSymbol[];
  /** Those that are functions. */
  readonly functions: readonly LinkedSymbol[];
  /** Places where its functions can be traced. */
  readonly sites: readonly FtraceSite[];
  /** Where its text counts: a module's, or the kernel's own, which cannot be unloaded. */
  readonly origin: 'module' | 'kernel';
  /** Runs when the module is unloaded, while its text is still there. Kernel: module_exit */
  readonly exit?: () => void;
  /** Gives all its memory back. */
  readonly free: () => void;
}

const PAGE = 4096n;

/** Which module an address of text belongs to, at the same cost for any number of modules. Kernel: mod_tree */
export class ModuleText {
  readonly #byPage = new Multimap<bigint, KModule>();

  add(module: KModule): void {
    for (const page of pagesOf(module)) this.#byPage.add(page, module);
  }

  remove(module: KModule): void {
    for (const page of pagesOf(module)) this.#byPage.remove(page, module);
  }

  /** Kernel: __module_text_address */
  at(address: Kaddr): KModule | undefined {
    return this.#byPage.get(address / PAGE).find((module) => module.holds(address));
  }
}

/** The pages that a module's text touches, each once. */
function pagesOf({ contents }: KModule): Set<bigint> {
  const pages = new Set<bigint>();
  for (const { address, sizeBytes } of contents.text) {
    for (let page = address / PAGE; page * PAGE < address + BigInt(sizeBytes); page++) pages.add(page);
  }
  return pages;
}

/**
 * Code that was loaded: a relocatable object becomes a module in the modules area, a static executable
 * is mapped where it was linked and counts as text of the kernel itself.
 *
 * Kernel: struct module; load_module, kernel/module.c
 */
export class KModule {
  readonly contents: ModuleContents;
  readonly #kernel: Kernel;
  readonly #ksyms: readonly Ksym[];
  readonly #byName: ReadonlyMap<string, LinkedSymbol>;
  #references = 0;
  #going = false;

  /** Makes symbols and sites known. */
  constructor(kernel: Kernel, contents: ModuleContents) {
    const { name, functions, symbols, origin, sites } = contents;
    this.#kernel = kernel;
    this.contents = contents;
    // of several symbols with one name, a global one
    const locals = symbols.filter(({ binding }) => binding === 'local');
    const globals = symbols.filter(({ binding }) => binding !== 'local');
    this.#byName = new Map([...locals, ...globals].map((symbol) => [symbol.name, symbol]));
    this.#ksyms = functions.map(({ name: symbol, address, sizeBytes }) => ({
      name: symbol,
      start: address,
      sizeBytes,
      kind: origin,
      ...(origin === 'module' ? { module: name } : {}),
    }));
    for (const ksym of this.#ksyms) kernel.kallsyms.add(ksym);
    for (const site of sites) kernel.ftrace.addSite(site.address);
    kernel.modules.push(this);
    kernel.moduleText.add(this);
  }

  get name(): string {
    return this.contents.name;
  }

  /** References by trampolines. */
  get references(): number {
    return this.#references;
  }

  /** A defined symbol of any kind. */
  symbol(name: string): LinkedSymbol | undefined {
    return this.#byName.get(name);
  }

  /** Whether an address is in its text. Kernel: within_module */
  holds(address: Kaddr): boolean {
    const behind = this.#kernel.bugs.has('T12-module') ? 1n : 0n;
    return this.contents.text.some(
      ({ address: start, sizeBytes }) => address >= start && address - start < BigInt(sizeBytes) + behind,
    );
  }

  /** Takes a reference unless the module is going. Kernel: try_module_get */
  tryGet(): boolean {
    if (this.#going) return false;
    this.#references++;
    return true;
  }

  /** Kernel: module_put */
  put(): void {
    if (this.#references === 0) throw new Bug(`module ${this.name} is put once too often`);
    this.#references--;
  }

  /** Unloads it. @throws KernelError EBUSY while it is in use, or for kernel text; ENOENT when it is gone. Kernel: delete_module */
  unload(): void {
    const { origin, sites, exit, free } = this.contents;
    if (this.#going) throw new KernelError('ENOENT', 'delete_module', `${this.name} is unloaded already`);
    if (origin === 'kernel' || this.#references > 0) {
      const why = origin === 'kernel' ? 'it is kernel text' : `${this.#references} trampolines hold it`;
      throw new KernelError('EBUSY', 'delete_module', `${this.name}: ${why}`);
    }
    this.#going = true;
    exit?.();
    for (const site of sites) this.#kernel.ftrace.removeSite(site.address);
    for (const ksym of this.#ksyms) this.#kernel.kallsyms.remove(ksym);
    this.#kernel.modules.splice(this.#kernel.modules.indexOf(this), 1);
    this.#kernel.moduleText.remove(this);
    free();
  }
}
