/*
 * The control block of a vCPU: a few words of host memory that the hooks (native code) and TypeScript
 * share, so that a run is started, counted, stopped and understood without one callback into
 * JavaScript, and registers pass through one batch call.
 *
 *   0   budget     i64  instructions that may still start; the CODE hook counts it down
 *   8   stopAt     u64  the address to stop before
 *  16   emuStop    u64  where uc_emu_stop lies, for the hooks
 *  24   stopped    u32  why a hook stopped the run: StopCode
 *  28   vector     u32  of the exception
 *  32   memType    u32  uc_mem_type of the access that failed
 *  36   memSize    u32  its bytes
 *  40   memAddress u64  its address
 *  48   lastRip    u64  the instruction that started last, written by the CODE hook
 *  56   eventRip   u64  lastRip and budget as they were when the hook of an exception, a syscall or port
 *  64   eventBudget i64 I/O ran: the CODE hook may run once more before such a run stops
 *  72   values     u64 x 19   one word per register, in REGISTERS' order
 * 256   pointers   u64 x 19   to the values
 * 448   ids        i32 x 19   Unicorn's numbers of the registers
 */
import koffi from 'koffi';
/** Byte offsets, as above. */
export const Offset = {
    budget: 0,
    stopAt: 8,
    emuStop: 16,
    stopped: 24,
    vector: 28,
    memType: 32,
    memSize: 36,
    memAddress: 40,
    lastRip: 48,
    eventRip: 56,
    eventBudget: 64,
    values: 72,
    pointers: 256,
    ids: 448,
};
const SIZE_BYTES = 576;
/** Values of the `stopped` word. */
export const StopCode = { none: 0, budget: 1, stopAt: 2, exception: 3, syscall: 4, portIo: 5 };
/**
 * The order of the registers in the block: what a run leaves behind (rax, rip) first, then what a call
 * sets (rsp, rflags, arguments), so that each is one run of words. Numbers: uc_x86_reg.
 */
const REGISTERS = [
    ['rax', 35],
    ['rip', 41],
    ['rsp', 44],
    ['rflags', 25],
    ['rdi', 39],
    ['rsi', 43],
    ['rdx', 40],
    ['rcx', 38],
    ['r8', 106],
    ['r9', 107],
    ['rbx', 37],
    ['rbp', 36],
    ['r10', 108],
    ['r11', 109],
    ['r12', 110],
    ['r13', 111],
    ['r14', 112],
    ['r15', 113],
    ['gs_base', 251],
];
/** Where each register stands in REGISTERS. */
export const registerIndex = new Map(REGISTERS.map(([name], index) => [name, index]));
export const NR_REGISTERS = REGISTERS.length;
export const RAX_INDEX = 0;
export const RIP_INDEX = 1;
export const RSP_INDEX = 2;
export const RFLAGS_INDEX = 3;
export const ARG0_INDEX = 4;
export const GS_BASE_INDEX = 18;
export class ControlBlock {
    pointer;
    /** The block as 32-bit words: index = byte offset / 4. */
    words;
    /** The values of the registers, in REGISTERS' order. */
    values;
    #wide;
    constructor(emuStop) {
        const memory = new ArrayBuffer(SIZE_BYTES);
        this.pointer = Number(koffi.address(memory));
        this.words = new Uint32Array(memory);
        this.values = new BigUint64Array(memory, Offset.values, REGISTERS.length);
        this.#wide = new BigUint64Array(memory);
        this.#wide[Offset.emuStop / 8] = BigInt(emuStop);
        REGISTERS.forEach(([, id], index) => {
            this.#wide[Offset.pointers / 8 + index] = BigInt(this.pointer + Offset.values + 8 * index);
            this.words[Offset.ids / 4 + index] = id;
        });
    }
    get stopAt() {
        return this.#wide[Offset.stopAt / 8];
    }
    set stopAt(address) {
        this.#wide[Offset.stopAt / 8] = address;
    }
    /** Two 32-bit stores rather than a bigint: budgets are set and read in every call. */
    set budget(instructions) {
        this.words[0] = instructions >>> 0;
        this.words[1] = Math.floor(instructions / 2 ** 32);
    }
    /** -1 when it ran out. */
    get budget() {
        return (this.words[1] | 0) * 2 ** 32 + this.words[0];
    }
    get memAddress() {
        return this.#wide[Offset.memAddress / 8];
    }
    get lastRip() {
        return this.#wide[Offset.lastRip / 8];
    }
    get eventRip() {
        return this.#wide[Offset.eventRip / 8];
    }
    get eventBudget() {
        return Number(BigInt.asIntN(64, this.#wide[Offset.eventBudget / 8]));
    }
}
//# sourceMappingURL=control-block.js.map