/* The host's end of a slot (control-block.ts): turns, and the registers of a stopped guest. */
import { availableParallelism } from 'node:os';
import { FPSTATE_SIZE_OFFSET, Frame, SIGNAL_STACK, SLOT_BYTES, SLOTS, Slot, Turn, USER_SEGMENTS, } from './control-block.js';
import { futexWait, futexWake } from './host.js';
/**
 * How often either side looks for its turn before it sleeps: microseconds, about as long as waking takes.
 * On a single core the other side cannot get on meanwhile.
 */
const LOOKS = availableParallelism() > 1 ? { host: 10_000, runner: 3000 } : { host: 0, runner: 0 };
const MILLISECONDS_FIRST_SLEEP = 1;
const MILLISECONDS_LONGEST_SLEEP = 64;
const SEGMENTS = USER_SEGMENTS.reduce((word, selector, i) => word | (BigInt(selector) << BigInt(16 * i)), 0n);
export class RunnerSlot {
    id;
    /** Where it lies in the child. */
    address;
    #pointer;
    #bytes;
    #words;
    #wide;
    /** Where the ucontext begins: index of a 64-bit word of the slot. */
    #frame = 0;
    constructor(memory, id) {
        this.id = id;
        this.address = SLOTS + BigInt(id * SLOT_BYTES);
        this.#pointer = memory.slots + id * SLOT_BYTES;
        const at = id * SLOT_BYTES;
        this.#bytes = new Uint8Array(memory.slotsBuffer, at, SLOT_BYTES);
        this.#words = new Int32Array(memory.slotsBuffer, at, SLOT_BYTES / 4);
        this.#wide = new BigUint64Array(memory.slotsBuffer, at, SLOT_BYTES / 8);
    }
    /** Fills the control block for a thread that is about to begin; it is the runner's turn then. */
    prepare() {
        this.#bytes.fill(0, 0, SIGNAL_STACK);
        this.#words[Slot.spins / 4] = LOOKS.runner;
        this.#words[Slot.hostPid / 4] = process.pid;
        this.#wide[Slot.altStack / 8] = this.address + BigInt(SIGNAL_STACK);
        this.#wide[Slot.altStack / 8 + 2] = BigInt(SLOT_BYTES - SIGNAL_STACK);
        this.#words[Slot.turn / 4] = Turn.RUNNER;
    }
    // Turns
    /** Lets the runner obey a command. */
    give(command) {
        const words = this.#words;
        words[Slot.command / 4] = command;
        Atomics.store(words, Slot.turn / 4, Turn.RUNNER);
        if (Atomics.load(words, Slot.runnerSleeps / 4) !== 0)
            futexWake(this.#pointer);
    }
    get isHostsTurn() {
        return Atomics.load(this.#words, Slot.turn / 4) === Turn.HOST;
    }
    /**
     * Waits for the turn.
     * @param goOn asked now and then; false ends the waiting
     * @returns whether it is the host's turn
     */
    wait(goOn) {
        const words = this.#words;
        for (let look = LOOKS.host; look >= 0; look--) {
            if (Atomics.load(words, Slot.turn / 4) === Turn.HOST)
                return true;
        }
        Atomics.store(words, Slot.hostSleeps / 4, 1);
        try {
            for (let sleep = MILLISECONDS_FIRST_SLEEP;; sleep = Math.min(2 * sleep, MILLISECONDS_LONGEST_SLEEP)) {
                if (this.isHostsTurn)
                    return true;
                futexWait(this.#pointer, Turn.RUNNER, sleep);
                if (this.isHostsTurn)
                    return true;
                if (!goOn())
                    return false;
            }
        }
        finally {
            Atomics.store(words, Slot.hostSleeps / 4, 0);
        }
    }
    /** To be called when the turn has come back from a run: the signal frame may lie elsewhere. */
    findFrame() {
        this.#frame = this.#offset(Slot.frame) / 8;
    }
    /** A word of the control block that is an address in this slot, as an offset. */
    #offset(word) {
        return this.#words[word / 4] & (SLOT_BYTES - 1);
    }
    // What the control block says
    u32(offset) {
        return this.#words[offset / 4] >>> 0;
    }
    setU32(offset, value) {
        this.#words[offset / 4] = value;
    }
    u64(offset) {
        return this.#wide[offset / 8];
    }
    setU64(offset, value) {
        this.#wide[offset / 8] = value;
    }
    /** Instructions that may still be executed: below 2^53, as two 32-bit words rather than a bigint. */
    get budget() {
        const low = this.u32(Slot.budget);
        return this.#words[Slot.budget / 4 + 1] * 2 ** 32 + low;
    }
    set budget(instructions) {
        this.#words[Slot.budget / 4] = instructions;
        this.#words[Slot.budget / 4 + 1] = Math.floor(instructions / 2 ** 32);
    }
    /** Memory for what a system call is to read, inside the child and here. */
    get scratch() {
        const bytes = this.#bytes.subarray(Slot.scratch, SIGNAL_STACK);
        return { address: this.address + BigInt(Slot.scratch), bytes };
    }
    // The registers of a stopped guest
    get(name) {
        return this.#wide[this.#frame + Frame[name] / 8];
    }
    set(name, value) {
        this.#wide[this.#frame + Frame[name] / 8] = value;
    }
    get eflags() {
        return this.#wide[this.#frame + Frame.eflags / 8];
    }
    set eflags(value) {
        this.#wide[this.#frame + Frame.eflags / 8] = value;
    }
    /** A guest may have loaded segment registers; it goes on in 64-bit user mode. */
    resetSegments() {
        this.#wide[this.#frame + Frame.segments / 8] = SEGMENTS;
    }
    /** Error code, vector and address of the exception behind the signal. */
    get exception() {
        const word = (offset) => this.#wide[this.#frame + offset / 8];
        return { error: Number(word(Frame.err)), vector: Number(word(Frame.trapno)), address: word(Frame.cr2) };
    }
    /** Copies of all registers. */
    save() {
        const general = this.#general();
        return { general: general.slice(), vector: this.#vector().slice() };
    }
    restore({ general, vector }) {
        this.#general().set(general);
        this.#vector().set(vector);
    }
    #general() {
        return this.#bytes.subarray(8 * this.#frame + Frame.r8, 8 * this.#frame + Frame.end);
    }
    #vector() {
        const word = (8 * this.#frame + Frame.fpstate) / 4;
        const start = this.#words[word] & (SLOT_BYTES - 1);
        const sizeBytes = this.#words[(start + FPSTATE_SIZE_OFFSET) / 4];
        return this.#bytes.subarray(start, start + sizeBytes);
    }
}
//# sourceMappingURL=slot.js.map