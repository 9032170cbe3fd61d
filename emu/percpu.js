/*
 * Per-CPU areas: one unit of memory per CPU, laid out alike. A per-CPU pointer is an offset into the
 * unit; GS_BASE of each CPU is the start of its unit.
 *
 *   base(cpu) + 0x00   (unused: a null per-CPU pointer)
 *             + 0x28   stack_canary   u64
 *             + 0x30   cpu_number     u32
 *             + 0x34   __preempt_count u32
 *             + 0x38   current_task   u64
 *             + 0x40   this_cpu_off   u64
 *             + 0x80   alloc()
 */
import { InputError, KernelError, kaddr } from '../lib/index.js';
import { PAGE_SIZE } from './engine.js';
import { FifoMap } from './fifo.js';
import { PERCPU_UNIT } from './layout.js';
import { POISON_FREE } from './pages.js';
const VARS = {
    stackCanary: 0x28,
    cpuNumber: 0x30,
    preemptCount: 0x34,
    currentTask: 0x38,
    thisCpuOff: 0x40,
};
const FIRST_DYNAMIC = 0x80;
/** Any value with a zero low byte, which stops string functions, does; a fixed one keeps runs equal. */
const STACK_CANARY = 0x5bd1e99593c46700n;
export class PerCpuAreas {
    vars = VARS;
    #block;
    #nrCpus;
    #start;
    /** By offset; freed ones stay, as undefined: V8's maps get slow where a key comes and goes. */
    #live = new Map();
    #freed = new FifoMap();
    #fresh = FIRST_DYNAMIC;
    constructor(space, nrCpus) {
        this.#nrCpus = nrCpus;
        this.#start = space.layout.percpuStart;
        this.#block = space.map(this.#start, nrCpus * PERCPU_UNIT, 'rw', this, {
            lanes: nrCpus,
            usedBytes: FIRST_DYNAMIC,
        });
        const { view } = this.#block;
        for (let cpu = 0; cpu < nrCpus; cpu++) {
            const unit = cpu * PERCPU_UNIT;
            view.setBigUint64(unit + VARS.stackCanary, STACK_CANARY, true);
            view.setUint32(unit + VARS.cpuNumber, cpu, true);
            view.setBigUint64(unit + VARS.thisCpuOff, this.base(cpu), true);
        }
    }
    alloc(sizeBytes, align) {
        if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
            throw new InputError('alloc_percpu', undefined, `the size must be a positive integer, not ${sizeBytes}`);
        }
        if (!Number.isInteger(Math.log2(align)) || align < 1 || align > PAGE_SIZE) {
            throw new InputError('alloc_percpu', undefined, `the alignment must be a power of two up to ${PAGE_SIZE}`);
        }
        const offset = this.#freed.get(shape({ sizeBytes, align })).shift() ?? this.#takeFresh(sizeBytes, align);
        this.#fill(offset, sizeBytes, 0);
        this.#live.set(offset, { sizeBytes, align });
        return offset;
    }
    #takeFresh(sizeBytes, align) {
        const offset = Math.ceil(this.#fresh / align) * align;
        if (offset + sizeBytes > PERCPU_UNIT) {
            throw new KernelError('ENOMEM', 'alloc_percpu', `no room for ${sizeBytes} bytes`);
        }
        this.#fresh = offset + sizeBytes;
        this.#block.host.usedBytes = this.#fresh;
        return offset;
    }
    free(offset) {
        const chunk = this.#live.get(offset);
        if (chunk === undefined) {
            throw new InputError('free_percpu', undefined, `nothing is allocated at offset 0x${offset.toString(16)}`);
        }
        this.#live.set(offset, undefined);
        this.#fill(offset, chunk.sizeBytes, POISON_FREE);
        this.#freed.get(shape(chunk)).push(offset);
    }
    #fill(offset, sizeBytes, byte) {
        for (let cpu = 0; cpu < this.#nrCpus; cpu++) {
            const start = cpu * PERCPU_UNIT + offset;
            this.#block.host.bytes.fill(byte, start, start + sizeBytes);
        }
    }
    base(cpu) {
        if (!Number.isInteger(cpu) || cpu < 0 || cpu >= this.#nrCpus) {
            throw new InputError('cpu', undefined, `there is no CPU ${cpu}: 0 to ${this.#nrCpus - 1} exist`);
        }
        return kaddr(this.#start + BigInt(cpu * PERCPU_UNIT));
    }
    address(offset, cpu) {
        return kaddr(this.base(cpu) + BigInt(offset));
    }
    regionAt(address) {
        const cpu = Math.floor(Number(address - this.#start) / PERCPU_UNIT);
        return { name: `per-CPU area of CPU ${cpu}`, start: this.base(cpu), sizeBytes: PERCPU_UNIT, perms: 'rw' };
    }
    save() {
        const live = new Map(this.#live);
        const freed = this.#freed.copy();
        const fresh = this.#fresh;
        return () => {
            this.#live = new Map(live);
            this.#freed = freed.copy();
            this.#fresh = fresh;
        };
    }
}
function shape({ sizeBytes, align }) {
    return `${sizeBytes}/${align}`;
}
//# sourceMappingURL=percpu.js.map