import { insnAt, stepPath } from '../jit/index.js';
import { hex16 } from '../lib/index.js';
import { NO_BUGS } from './bugs.js';
import { Multimap } from './multimap.js';
const PAGE_SHIFT = 12n;
const page = (address) => Number(address >> PAGE_SHIFT);
/**
 * The table of text symbols: by address and by name, for faults, listings and text pokes.
 * Adding, removing and looking up cost the same however many symbols there are.
 *
 * Kernel: kernel/kallsyms.c for kernel and module symbols, the bpf_ksym tree of kernel/bpf/core.c for images.
 */
export class Kallsyms {
    #byPage = new Multimap();
    #byName = new Multimap();
    /** How far behind its end a symbol reaches, bytes. */
    #behind;
    constructor(bugs = NO_BUGS) {
        this.#behind = bugs.has('T12') ? 1n : 0n;
    }
    add(ksym) {
        for (const key of pagesOf(ksym))
            this.#byPage.add(key, ksym);
        this.#byName.add(ksym.name, ksym);
    }
    remove(ksym) {
        for (const key of pagesOf(ksym))
            this.#byPage.remove(key, ksym);
        this.#byName.remove(ksym.name, ksym);
    }
    /** The symbol whose range holds the address. Kernel: kallsyms_lookup, bpf_ksym_find. */
    lookup(address) {
        const ksym = this.#byPage
            .get(page(address))
            .find(({ start, sizeBytes }) => address >= start && address - start < BigInt(sizeBytes) + this.#behind);
        return ksym === undefined ? undefined : { ksym, offset: Number(address - ksym.start) };
    }
    /** The oldest symbol of that name. */
    named(name) {
        return this.#byName.get(name)[0];
    }
    /** Symbol, offset and, inside an image, the emitter's step: what a fault prints. */
    locate(address) {
        const hit = this.lookup(address);
        if (hit === undefined)
            return undefined;
        const code = hit.ksym.code?.();
        const insn = code === undefined ? undefined : insnAt(code, hit.offset);
        const place = { symbol: hit.ksym.name, offset: hit.offset };
        return insn === undefined ? place : { ...place, step: stepPath(insn.step) };
    }
    /** `symbol+0x12`, or the bare symbol at its start; undefined when nothing covers the address. */
    nameOf(address) {
        const hit = this.lookup(address);
        if (hit === undefined)
            return undefined;
        return hit.offset === 0 ? hit.ksym.name : `${hit.ksym.name}+0x${hit.offset.toString(16)}`;
    }
    /** All symbols by address. */
    list() {
        return this.#byName.values().sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
    }
    /** Lines as /proc/kallsyms prints them: address, type, name, and the module in brackets. */
    lines() {
        return this.list().map(({ name, start, kind, module }) => {
            const origin = kind === 'bpf' ? '\t[bpf]' : module === undefined ? '' : `\t[${module}]`;
            return `${hex16(start)} t ${name}${origin}`;
        });
    }
}
function pagesOf({ start, sizeBytes }) {
    const first = page(start);
    const count = page(start + BigInt(Math.max(sizeBytes, 1) - 1)) - first + 1;
    return Array.from({ length: count }, (_, i) => first + i);
}
//# sourceMappingURL=kallsyms.js.map