/*
 * What a kernel holds right now, as plain data: for tests, for JSON, and for people.
 */
import { hex16, hex64 } from '../lib/index.js';
import { PROG_KINDS } from './prog.js';
/** Reads everything; changes nothing. */
export function introspect(kernel) {
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
        warnings: [...kernel.warnings],
    };
}
function trampolines(kernel) {
    const names = (progs) => progs.map(({ name }) => name);
    return kernel.trampolines
        .list()
        .map(({ key, func, references, progs, extension, curImage, selector }) => ({
        key,
        function: func?.model.name ?? null,
        references,
        progs: { fentry: names(progs.fentry), fmod_ret: names(progs.fmod_ret), fexit: names(progs.fexit) },
        extension: extension?.name ?? null,
        image: curImage?.ksym.name ?? null,
        selector,
    }))
        .sort((a, b) => (a.key < b.key ? -1 : 1));
}
function progInfo(kernel, prog) {
    const { name, kind, sleepable, linked, references } = prog;
    const counters = kernel.machine.cpus.map(({ id }) => prog.counters(id));
    return { name, kind, sleepable, linked, references, counters };
}
function imageInfo(kernel, im) {
    return {
        ksym: im.ksym.name,
        address: im.image,
        length: im.length,
        state: im.state,
        references: im.pcref.references(),
        waitsFor: im.state === 'live' ? null : imageWait(kernel, im),
    };
}
function imageWait(kernel, im) {
    const flavour = waitedFlavour(im);
    if (flavour === null)
        return { flavour, tasks: [] };
    const holdouts = kernel.grace.flavours[flavour].holdouts;
    return { flavour, tasks: holdouts.map((id) => taskName(kernel, id)) };
}
function waitedFlavour({ state, pcref }) {
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
function taskName(kernel, id) {
    if (id < 0)
        return `call on cpu${-1 - id}`;
    return kernel.scheduler?.tasks.find((task) => task.id === id)?.name ?? `task ${id}`;
}
/** As one JSON document: 64-bit values are hex strings. */
export function reportToJson(report) {
    return JSON.stringify(report, (_key, value) => (typeof value === 'bigint' ? hex64(value) : value), 2);
}
/** As tables, for people. Kernel text is left out; `Kallsyms.lines` has it. */
export function formatReport(report) {
    const { trampolines, programs, images, modules, ksyms, modmemPages, warnings } = report;
    const parts = [
        table(['trampoline', 'function', 'refs', 'image', ...PROG_KINDS, 'replaced by'], trampolines.map((tr) => [
            hex64(tr.key),
            tr.function ?? '-',
            String(tr.references),
            tr.image ?? '-',
            ...PROG_KINDS.map((kind) => tr.progs[kind].join(' ') || '-'),
            tr.extension ?? '-',
        ])),
        table(['program', 'kind', 'refs', 'cpu', 'runs', 'ns', 'misses', 'active'], programs.flatMap(({ name, kind, sleepable, references, counters }) => counters.map(({ runs, nsecs, misses, active }, cpu) => [
            name,
            sleepable ? `${kind}.s` : kind,
            String(references),
            String(cpu),
            ...[runs, nsecs, misses, active].map(String),
        ]))),
        table(['image', 'address', 'bytes', 'state', 'refs', 'waits for'], images.map(({ ksym, address, length, state, references, waitsFor }) => [
            ksym,
            hex16(address),
            String(length),
            state,
            String(references),
            waitsFor === null ? '-' : formatWait(state, waitsFor),
        ])),
        table(['module', 'origin', 'refs'], modules.map(({ name, origin, references }) => [name, origin, String(references)])),
        table(['symbol', 'address', 'bytes', 'module'], ksyms
            .filter(({ kind }) => kind !== 'kernel')
            .map(({ name, address, sizeBytes, module }) => [
            name,
            hex16(address),
            String(sizeBytes),
            module ?? '[bpf]',
        ])),
        `charged pages: ${modmemPages}`,
        ...warnings.map((text) => `WARNING: ${text}`),
    ];
    return `${parts.join('\n\n')}\n`;
}
function formatWait(state, { flavour, tasks }) {
    if (flavour === null)
        return state === 'work' ? 'the workqueue' : 'calls in flight';
    return tasks.length === 0 ? flavour : `${flavour}: ${tasks.join(', ')}`;
}
/** Left-aligned columns, two spaces apart. */
function table(heading, rows) {
    const widths = heading.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)));
    const line = (cells) => cells
        .map((cell, i) => cell.padEnd(widths[i]))
        .join('  ')
        .trimEnd();
    return [heading, ...rows].map(line).join('\n');
}
//# sourceMappingURL=introspect.js.map