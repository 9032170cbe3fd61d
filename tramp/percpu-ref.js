import { PercpuRef as Field } from '../jit/index.js';
import { Bug, kaddr } from '../lib/index.js';
import { NO_BUGS } from './bugs.js';
/*
 *             kill()                confirmed                     last put
 *   PERCPU ------------> DEAD ---------------------> ATOMIC ---------------------> released
 *   gs: counters         new gets and puts are       count = sum of the counters
 *                        atomic from here on         (the bias and our own reference gone)
 *
 * The counters and the flags are in guest memory: __bpf_tramp_enter and __bpf_tramp_exit work on them
 * without leaving the guest (jit/runtime).
 */
/** Keeps the atomic count away from zero while the per-CPU counters are in use. Kernel: PERCPU_COUNT_BIAS */
const BIAS = 1n << 63n;
/**
 * A reference count that is cheap to take on every CPU until it is killed.
 * Kernel: lib/percpu-refcount.c
 */
export class PercpuRef {
    #machine;
    #grace;
    #address;
    #counter;
    #release;
    #bugs;
    #state = 'percpu';
    /**
     * @param address the struct percpu_ref in guest memory
     * @param release called once, when the last reference is gone after kill(). Kernel: percpu_ref_init
     */
    constructor(machine, grace, address, release, bugs = NO_BUGS) {
        this.#bugs = bugs;
        this.#machine = machine;
        this.#grace = grace;
        this.#address = address;
        this.#release = release;
        this.#counter = machine.percpu.alloc(8, 8);
        this.#set(Field.percpuCountPtr, BigInt(this.#counter));
        this.#set(Field.count, BIAS + 1n);
        this.#set(Field.released, 0n);
    }
    get state() {
        return this.#state;
    }
    /**
     * Drops the owner's reference and has gets and puts count atomically; release follows once all others
     * are dropped too. Kernel: percpu_ref_kill
     */
    kill() {
        if (this.#state !== 'percpu')
            throw new Bug(`percpu_ref killed while ${this.#state}`);
        this.#state = 'dead';
        this.#set(Field.percpuCountPtr, BigInt(this.#counter | Field.ATOMIC | Field.DEAD));
        if (this.#bugs.has('kill-unconfirmed')) {
            this.#switchToAtomic();
            return;
        }
        // Gets and puts run under rcu_read_lock: after a grace period nobody is left who saw the old flags.
        this.#grace.callRcu(() => this.#switchToAtomic());
    }
    /** A guest has dropped the last reference, and nobody has looked yet. */
    get wantsRelease() {
        return this.#state === 'atomic' && this.#get(Field.released) !== 0n;
    }
    /** Fires release when a guest dropped the last reference. */
    poll() {
        if (!this.wantsRelease)
            return;
        this.#state = 'released';
        this.#release();
    }
    /** References held now, the owner's included. */
    references() {
        if (this.#state === 'released')
            return 0n;
        const count = BigInt.asIntN(64, this.#get(Field.count));
        return this.#state === 'atomic' ? count : BigInt.asIntN(64, count - BIAS + this.#sum());
    }
    /** Frees the counters. Kernel: percpu_ref_exit */
    exit() {
        this.#machine.percpu.free(this.#counter);
    }
    #switchToAtomic() {
        const count = this.#get(Field.count) + this.#sum() - BIAS;
        this.#state = 'atomic';
        // and the owner's own reference goes
        const others = this.#bugs.has('own-reference-kept') ? count : count - 1n;
        this.#set(Field.count, others);
        if (BigInt.asUintN(64, others) === 0n)
            this.#set(Field.released, 1n);
        this.poll();
    }
    #sum() {
        const { memory, percpu, cpus } = this.#machine;
        const counted = this.#bugs.has('sum-one-cpu') ? cpus.slice(0, 1) : cpus;
        return counted.reduce((sum, { id }) => sum + memory.readU64(percpu.address(this.#counter, id)), 0n);
    }
    #get(field) {
        return this.#machine.memory.readU64(kaddr(this.#address + BigInt(field)));
    }
    #set(field, value) {
        this.#machine.memory.writeU64(kaddr(this.#address + BigInt(field)), value);
    }
}
//# sourceMappingURL=percpu-ref.js.map