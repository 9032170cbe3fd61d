/*
 * The guest runtime in its place: the enter and exit functions as kernel text, the clock and the splat
 * counters as data, and the static branches that switch statistics.
 */
import { emitRuntime, linkCode, NOP5, patchBytes, RuntimeData, STATS_KEY, } from '../jit/index.js';
import { addrAdd, Bug } from '../lib/index.js';
/** Nanoseconds that the clock shows at boot, and what each reading of it adds. */
const CLOCK_START = 1000000000n;
const CLOCK_TICK = 10n;
export class RuntimeText {
    /** The functions that images and programs call, by symbol. */
    helpers;
    #machine;
    #text;
    /** Where the clock is: a u64, nanoseconds. */
    clockAddress;
    /** Per-CPU offset of a u32: how often might_fault() found that faulting was not allowed. */
    splatsOffset;
    #branches;
    #statsOn = false;
    /** Emits, links and writes the runtime, and makes its symbols known. */
    constructor(machine, kallsyms, text, revision, options) {
        const { memory, percpu } = machine;
        this.#machine = machine;
        this.#text = text;
        this.clockAddress = memory.allocKernelData(16, 'clock');
        this.splatsOffset = percpu.alloc(4, 4);
        const tick = addrAdd(this.clockAddress, 8);
        memory.writeU64(this.clockAddress, CLOCK_START);
        memory.writeU64(tick, CLOCK_TICK);
        const { currentTask, preemptCount } = percpu.vars;
        const code = emitRuntime(revision, { currentTask, preemptCount, mightFaultSplats: this.splatsOffset }, options);
        const base = memory.allocKernelText(code.bytes.length, 'kernel text');
        const data = new Map([
            [RuntimeData.clock, this.clockAddress],
            [RuntimeData.tick, tick],
        ]);
        const linked = linkCode(code, base, (symbol) => data.get(symbol));
        machine.patchText(base, linked.bytes);
        for (const { name, offset, sizeBytes } of linked.symbols) {
            const start = addrAdd(base, offset);
            kallsyms.add({ name, start, sizeBytes, kind: 'kernel', code: () => slice(linked, offset, sizeBytes) });
        }
        this.helpers = Object.fromEntries(linked.symbols.map(({ name, offset }) => [name, addrAdd(base, offset)]));
        this.#branches = linked.sites
            .filter(({ name }) => name === STATS_KEY)
            .map(({ offset, targetOffset }) => {
            if (targetOffset === undefined)
                throw new Bug('a static branch without a target');
            return { address: addrAdd(base, offset), target: addrAdd(base, targetOffset) };
        });
    }
    get statsEnabled() {
        return this.#statsOn;
    }
    set statsEnabled(on) {
        if (on === this.#statsOn)
            return;
        for (const { address, target } of this.#branches) {
            const bytes = on ? patchBytes('JUMP', address, target) : Uint8Array.from(NOP5);
            if (bytes === undefined)
                throw new Bug('a static branch reaches further than 2 GiB');
            this.#text.poke(address, bytes);
        }
        this.#statsOn = on;
    }
    get clock() {
        return this.#machine.memory.readU64(this.clockAddress);
    }
    set clock(nanoseconds) {
        this.#machine.memory.writeU64(this.clockAddress, nanoseconds);
    }
    mightFaultSplats(cpu) {
        const { memory, percpu } = this.#machine;
        return memory.readU32(percpu.address(this.splatsOffset, cpu));
    }
}
/** The part of linked code that one symbol covers, offsets from its start. */
function slice(code, offset, sizeBytes) {
    const within = (items) => items
        .filter((item) => item.offset >= offset && item.offset < offset + sizeBytes)
        .map((item) => ({ ...item, offset: item.offset - offset }));
    return {
        bytes: code.bytes.subarray(offset, offset + sizeBytes),
        insns: within(code.insns),
        relocs: within(code.relocs),
        sites: [],
        symbols: [],
    };
}
//# sourceMappingURL=runtime-text.js.map