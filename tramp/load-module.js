/*
 * From an ELF file to a module in memory. Kernel: load_module, kernel/module.c
 */
import { InputError, kaddr } from '../lib/index.js';
import { ftraceSites, layoutObject, linkObject } from '../obj/index.js';
import { KModule } from './module.js';
const PAGE = 4096n;
/**
 * Loads an ELF file: allocate, link, write, then turn every trace site into its nop. On error nothing has changed.
 *
 * @param as where a relocatable object goes; a static executable is kernel text where it was linked
 * @throws InputError what is wrong with the file; undefined symbols by name
 */
export function loadModule(kernel, object, name, as = 'module') {
    const layout = layoutObject(object);
    const taken = [];
    const free = () => {
        for (const give of taken)
            give();
    };
    try {
        const places = new Map(layout.groups.map((group) => [group, take(kernel, group, name, as, taken)]));
        const linked = linkObject(layout, (group) => places.get(group), (symbol) => resolveSymbol(kernel, symbol));
        const sites = ftraceSites(linked);
        for (const { kind, address, bytes } of linked.groups) {
            if (kind === 'text')
                kernel.machine.patchText(address, bytes);
            else
                kernel.machine.memory.write(address, bytes);
        }
        return new KModule(kernel, {
            name,
            text: linked.groups.filter(({ kind }) => kind === 'text'),
            symbols: linked.symbols,
            functions: linked.functions,
            sites,
            origin: object.type === 'rel' ? as : 'kernel',
            free,
        });
    }
    catch (error) {
        free();
        throw error;
    }
}
/** Allocates a group's memory and notes how to give it back. */
function take(kernel, group, module, as, taken) {
    const { memory } = kernel.machine;
    const name = `${module} ${group.kind}`;
    if (group.fixed !== undefined) {
        const start = kaddr(group.fixed & -PAGE);
        const end = (group.fixed + BigInt(group.sizeBytes) + PAGE - 1n) & -PAGE;
        const perms = { text: 'rx', rodata: 'r', data: 'rw', bss: 'rw' }[group.kind];
        const region = memory.map(start, Number(end - start), perms, name);
        taken.push(() => memory.unmap(region));
        return group.fixed;
    }
    if (as === 'kernel')
        return takeBuiltIn(kernel, group, name, taken);
    const align = { align: Math.max(group.alignBytes, Number(PAGE)) };
    if (group.kind === 'text') {
        const text = memory.allocText(group.sizeBytes, name, align);
        taken.push(() => memory.freeText(text));
        return text;
    }
    const data = group.kind === 'rodata'
        ? memory.allocRodata(group.sizeBytes, name, align)
        : memory.allocData(group.sizeBytes, name, align);
    taken.push(() => memory.freeData(data));
    return data;
}
/** Memory of the kernel's own text and data. */
function takeBuiltIn(kernel, group, name, taken) {
    const { memory } = kernel.machine;
    if (BigInt(group.alignBytes) > PAGE) {
        throw new InputError(name, undefined, `alignment ${group.alignBytes}; at most ${PAGE} bytes in kernel text`);
    }
    if (group.kind === 'text') {
        const text = memory.allocKernelText(group.sizeBytes, name);
        taken.push(() => memory.freeText(text));
        return text;
    }
    const data = memory.allocKernelData(group.sizeBytes, name, group.kind === 'rodata' ? 'r' : 'rw');
    taken.push(() => memory.freeData(data));
    return data;
}
/** What a name means to code that is loaded now: a kernel function, or a global symbol of what is there already. */
export function resolveSymbol(kernel, name) {
    const helper = kernel.helpers[name];
    if (helper !== undefined)
        return helper;
    for (const module of kernel.modules) {
        const symbol = module.symbol(name);
        if (symbol !== undefined && symbol.binding !== 'local')
            return symbol.address;
    }
    return undefined;
}
//# sourceMappingURL=load-module.js.map