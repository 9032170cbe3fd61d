import { Bug, KernelError } from '../lib/index.js';
import { Multimap } from './multimap.js';
const PAGE = 4096n;
/** Which module an address of text belongs to, at the same cost for any number of modules. Kernel: mod_tree */
export class ModuleText {
    #byPage = new Multimap();
    add(module) {
        for (const page of pagesOf(module))
            this.#byPage.add(page, module);
    }
    remove(module) {
        for (const page of pagesOf(module))
            this.#byPage.remove(page, module);
    }
    /** Kernel: __module_text_address */
    at(address) {
        return this.#byPage.get(address / PAGE).find((module) => module.holds(address));
    }
}
/** The pages that a module's text touches, each once. */
function pagesOf({ contents }) {
    const pages = new Set();
    for (const { address, sizeBytes } of contents.text) {
        for (let page = address / PAGE; page * PAGE < address + BigInt(sizeBytes); page++)
            pages.add(page);
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
    contents;
    #kernel;
    #ksyms;
    #byName;
    #references = 0;
    #going = false;
    /** Makes symbols and sites known. */
    constructor(kernel, contents) {
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
        for (const ksym of this.#ksyms)
            kernel.kallsyms.add(ksym);
        for (const site of sites)
            kernel.ftrace.addSite(site.address);
        kernel.modules.push(this);
        kernel.moduleText.add(this);
    }
    get name() {
        return this.contents.name;
    }
    /** References by trampolines. */
    get references() {
        return this.#references;
    }
    /** A defined symbol of any kind. */
    symbol(name) {
        return this.#byName.get(name);
    }
    /** Whether an address is in its text. Kernel: within_module */
    holds(address) {
        const behind = this.#kernel.bugs.has('T12-module') ? 1n : 0n;
        return this.contents.text.some(({ address: start, sizeBytes }) => address >= start && address - start < BigInt(sizeBytes) + behind);
    }
    /** Takes a reference unless the module is going. Kernel: try_module_get */
    tryGet() {
        if (this.#going)
            return false;
        this.#references++;
        return true;
    }
    /** Kernel: module_put */
    put() {
        if (this.#references === 0)
            throw new Bug(`module ${this.name} is put once too often`);
        this.#references--;
    }
    /** Unloads it. @throws KernelError EBUSY while it is in use, or for kernel text; ENOENT when it is gone. Kernel: delete_module */
    unload() {
        const { origin, sites, exit, free } = this.contents;
        if (this.#going)
            throw new KernelError('ENOENT', 'delete_module', `${this.name} is unloaded already`);
        if (origin === 'kernel' || this.#references > 0) {
            const why = origin === 'kernel' ? 'it is kernel text' : `${this.#references} trampolines hold it`;
            throw new KernelError('EBUSY', 'delete_module', `${this.name}: ${why}`);
        }
        this.#going = true;
        exit?.();
        for (const site of sites)
            this.#kernel.ftrace.removeSite(site.address);
        for (const ksym of this.#ksyms)
            this.#kernel.kallsyms.remove(ksym);
        this.#kernel.modules.splice(this.#kernel.modules.indexOf(this), 1);
        this.#kernel.moduleText.remove(this);
        free();
    }
}
//# sourceMappingURL=module.js.map