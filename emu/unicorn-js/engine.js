/*
 * The engine over unicorn.js: Unicorn as WebAssembly.
 *
 * Two things differ from the native library. Instances share no memory, so there is one instance, and
 * vCPUs take turns on it by switching contexts. And its memory is inside the WebAssembly heap, out of
 * reach, so a block here is a copy: before a run, pages that the host changed go in; after it, pages
 * that the guest wrote come out. A page counts as changed when it differs from what both sides last
 * agreed on, so live views need no notice of writes.
 *
 * Slower by far, for hosts where the native library cannot be; the results are the same. Simplified:
 * `in` and `out` do nothing here (the wrapper cannot hook them), where unicorn/ makes them a stop.
 */
import { Bug, kaddr } from '../../lib/index.js';
import { NULL_FETCH, PAGE_SIZE, } from '../engine.js';
import { loadUnicornJs } from './package.js';
const ARCH_X86 = 4;
const MODE_64 = 8;
const TLB_VIRTUAL = 1;
const PROT = { r: 1, rw: 3, rx: 5 };
const Hook = {
    INTR: 1 << 0,
    INSN: 1 << 1,
    CODE: 1 << 2,
    MEM_WRITE: 1 << 11,
};
/** The six events of accesses that fail. The wrapper takes them one by one only. */
const INVALID_ACCESS_HOOKS = [4, 5, 6, 7, 8, 9].map((bit) => 1 << bit);
const INSN_SYSCALL = 699;
const INSN_SYSENTER = 700;
/** uc_mem_type of the accesses that fail. */
const MEMORY_STOPS = new Map([
    [19, { access: 'read', cause: 'unmapped' }],
    [20, { access: 'write', cause: 'unmapped' }],
    [21, { access: 'fetch', cause: 'unmapped' }],
    [22, { access: 'write', cause: 'protected' }],
    [23, { access: 'read', cause: 'protected' }],
    [24, { access: 'fetch', cause: 'protected' }],
]);
/** uc_x86_reg. */
const REGISTERS = {
    rax: 35,
    rbp: 36,
    rbx: 37,
    rcx: 38,
    rdi: 39,
    rdx: 40,
    rip: 41,
    rsi: 43,
    rsp: 44,
    r8: 106,
    r9: 107,
    r10: 108,
    r11: 109,
    r12: 110,
    r13: 111,
    r14: 112,
    r15: 113,
    rflags: 25,
    gs_base: 251,
};
const ARGUMENTS = ['rdi', 'rsi', 'rdx', 'rcx', 'r8', 'r9'];
const CLEAR_RFLAGS = 2n;
const ERR_OK = 0;
const ERR_INSN_INVALID = 10;
/** @throws InputError when unicorn.js is not there */
export async function createUnicornJsEngine(options) {
    const factory = options.factory ?? (await loadUnicornJs());
    const { Unicorn } = await factory();
    const uc = new Unicorn(ARCH_X86, MODE_64);
    // Without this, kernel addresses are cut to the physical width.
    uc.ctl_tlb_mode(TLB_VIRTUAL);
    return new UnicornJsEngine(uc, options.cpus);
}
/** A block and what the instance knows of it. */
class CopiedBlock {
    bytes;
    lanes;
    usedBytes;
    /** What the instance's memory holds, while mapped. */
    agreed;
    constructor(sizeBytes, lanes, usedBytes) {
        this.bytes = new Uint8Array(sizeBytes);
        this.agreed = new Uint8Array(sizeBytes);
        this.lanes = lanes;
        this.usedBytes = usedBytes;
    }
}
class UnicornJsEngine {
    name = 'unicorn.js';
    cpus;
    #uc;
    #memory;
    #open = true;
    constructor(uc, nrCpus) {
        this.#uc = uc;
        this.#memory = new CopiedMemory(uc);
        const instance = new Instance(uc, this.#memory);
        this.cpus = Array.from({ length: nrCpus }, () => new UnicornJsCpu(instance));
    }
    allocBlock(sizeBytes, use = {}) {
        const lanes = use.lanes ?? 1;
        return new CopiedBlock(sizeBytes, lanes, use.usedBytes ?? sizeBytes / lanes);
    }
    map(address, block, perms) {
        if (!(block instanceof CopiedBlock))
            throw new Bug('a block of another engine');
        if (!this.#open)
            return;
        this.#uc.mem_map(address, block.bytes.length, PROT[perms]);
        this.#memory.add(address, block);
    }
    unmap(address, block) {
        if (!this.#open)
            return;
        this.#uc.ctl_remove_cache(address, address + BigInt(block.bytes.length));
        this.#uc.mem_unmap(address, block.bytes.length);
        this.#memory.remove(address);
    }
    textChanged(address, lengthBytes) {
        if (!this.#open)
            return;
        this.#memory.copyIn();
        this.#uc.ctl_remove_cache(address, address + BigInt(lengthBytes));
    }
    close() {
        // The wrapper traps on a second close.
        if (this.#open)
            this.#uc.close();
        this.#open = false;
    }
}
/** The mapped blocks, and the copying. */
class CopiedMemory {
    #uc;
    #mappings = [];
    constructor(uc) {
        this.#uc = uc;
    }
    /** All of the block goes in: what is not in use may still be filled with something. */
    add(address, block) {
        this.#mappings.push({ address, block });
        this.#uc.mem_write(address, block.bytes);
        block.agreed.set(block.bytes);
    }
    remove(address) {
        this.#mappings = this.#mappings.filter((mapping) => mapping.address !== address);
    }
    /** Gives the instance every page in use that the host changed. */
    copyIn() {
        for (const { address, block } of this.#mappings) {
            const { bytes, agreed, lanes, usedBytes } = block;
            const stride = bytes.length / lanes;
            for (let lane = 0; lane < lanes; lane++) {
                const end = lane * stride + usedBytes;
                for (let offset = lane * stride; offset < end; offset += PAGE_SIZE) {
                    const page = bytes.subarray(offset, offset + PAGE_SIZE);
                    if (Buffer.compare(page, agreed.subarray(offset, offset + PAGE_SIZE)) === 0)
                        continue;
                    this.#uc.mem_write(address + BigInt(offset), page);
                    agreed.set(page, offset);
                }
            }
        }
    }
    /** Takes the pages (by number) that the guest wrote. */
    copyOut(pages) {
        for (const page of pages) {
            const address = page * BigInt(PAGE_SIZE);
            const mapping = this.#mappings.find((candidate) => address >= candidate.address && address < candidate.address + BigInt(candidate.block.bytes.length));
            if (mapping === undefined)
                continue;
            const offset = Number(address - mapping.address);
            const bytes = this.#uc.mem_read(address, PAGE_SIZE);
            mapping.block.bytes.set(bytes, offset);
            mapping.block.agreed.set(bytes, offset);
        }
    }
}
/** The one instance, and which vCPU is on it. */
class Instance {
    uc;
    memory;
    pristine;
    notes = {
        budget: 0,
        stopAt: undefined,
        started: 0,
        lastRip: 0n,
        stop: undefined,
        vector: 0,
        memory: undefined,
        dirty: new Set(),
    };
    /** The first error of ours in a hook: it must not unwind through the WebAssembly. */
    hookError;
    #current;
    constructor(uc, memory) {
        this.uc = uc;
        this.memory = memory;
        this.#installHooks();
        this.pristine = uc.context_alloc();
        uc.context_save(this.pristine);
    }
    #installHooks() {
        const { uc, notes } = this;
        const guarded = (onError, hook) => (_uc, ...args) => {
            try {
                return hook(...args);
            }
            catch (error) {
                this.hookError ??= error;
                uc.emu_stop();
                return onError;
            }
        };
        const stop = (why) => {
            // One more instruction may begin before the stop: the first reason holds.
            notes.stop ??= why;
            uc.emu_stop();
        };
        uc.hook_add(Hook.CODE, guarded(undefined, (address) => {
            if (notes.stop !== undefined)
                return;
            const rip = BigInt.asUintN(64, address);
            notes.lastRip = rip;
            if (rip === notes.stopAt)
                stop('stop-at');
            else if (notes.started === notes.budget)
                stop('budget');
            else
                notes.started++;
        }));
        uc.hook_add(Hook.INTR, guarded(undefined, (vector) => {
            notes.vector = vector;
            stop('exception');
        }));
        for (const insn of [INSN_SYSCALL, INSN_SYSENTER]) {
            const onSyscall = guarded(undefined, () => stop('syscall'));
            uc.hook_add(Hook.INSN, onSyscall, undefined, 1, 0, insn);
        }
        for (const type of INVALID_ACCESS_HOOKS) {
            uc.hook_add(type, guarded(false, (memType, address, sizeBytes) => {
                const what = MEMORY_STOPS.get(memType);
                if (what === undefined)
                    throw new Bug(`memory hook: type ${memType}`);
                notes.memory = { ...what, address: kaddr(address), sizeBytes };
                return false;
            }));
        }
        uc.hook_add(Hook.MEM_WRITE, guarded(undefined, (_type, address, sizeBytes) => {
            const first = BigInt.asUintN(64, address);
            notes.dirty.add(first / BigInt(PAGE_SIZE));
            notes.dirty.add((first + BigInt(sizeBytes - 1)) / BigInt(PAGE_SIZE));
        }));
    }
    /** Brings a vCPU's registers onto the instance. */
    switchTo(cpu) {
        if (this.#current === cpu)
            return;
        if (this.#current !== undefined)
            this.uc.context_save(this.#current.context);
        this.uc.context_restore(cpu.context);
        this.#current = cpu;
    }
    /** Runs the current vCPU and returns Unicorn's error number. */
    run(begin, budget, stopAt) {
        const { notes } = this;
        Object.assign(notes, { budget, stopAt, started: 0, stop: undefined, memory: undefined });
        this.memory.copyIn();
        let error = ERR_OK;
        try {
            this.uc.emu_start(begin, 0n, 0, 0);
        }
        catch (thrown) {
            error = errorNumber(thrown);
        }
        this.memory.copyOut(notes.dirty);
        notes.dirty.clear();
        const { hookError } = this;
        this.hookError = undefined;
        if (hookError !== undefined)
            throw hookError;
        return error;
    }
}
class UnicornJsCpu {
    executed = 0;
    stopRip = kaddr(0n);
    rax = 0n;
    rip = kaddr(0n);
    vector = 0;
    /** Where the registers rest while another vCPU runs. */
    context;
    #instance;
    #memoryStop;
    #gsBase = kaddr(0n);
    /** As in unicorn/engine.ts: an exception stays pending until a clean context replaces it. */
    #tainted = false;
    constructor(instance) {
        this.#instance = instance;
        const { uc } = instance;
        this.context = uc.context_alloc();
        uc.context_restore(instance.pristine);
        uc.context_save(this.context);
    }
    load(rip, rsp, args) {
        const uc = this.#uc();
        if (this.#tainted) {
            uc.context_restore(this.#instance.pristine);
            this.#tainted = false;
            this.setGsBase(this.#gsBase);
        }
        this.rip = rip;
        this.set('rsp', rsp);
        uc.reg_write_i64(REGISTERS.rflags, CLEAR_RFLAGS);
        args.forEach((arg, index) => {
            this.set(ARGUMENTS[index], arg);
        });
    }
    run(budget, stopAt) {
        const uc = this.#uc();
        const { notes } = this.#instance;
        const error = this.#instance.run(this.rip, budget, stopAt);
        this.#readBack(uc);
        this.stopRip = this.rip;
        this.executed = notes.started;
        this.vector = notes.vector;
        this.#memoryStop = notes.memory;
        if (notes.stop === 'budget' || notes.stop === 'stop-at')
            return notes.stop;
        // Unicorn insists on an address to end at, and 0 it is: getting there is a call of a null pointer.
        if (notes.stop === undefined && error === ERR_OK && this.rip === 0n) {
            this.#memoryStop = NULL_FETCH;
            return 'memory';
        }
        // Fetching fails before the instruction begins; all else ends one that has begun.
        const fetchFailed = error !== ERR_OK && notes.memory?.access === 'fetch';
        if (!fetchFailed) {
            this.executed--;
            this.stopRip = kaddr(notes.lastRip);
        }
        if (notes.stop === undefined && error === ERR_OK)
            return 'halted';
        this.#tainted = true;
        if (notes.stop !== undefined)
            return notes.stop;
        if (error === ERR_INSN_INVALID)
            return 'invalid-opcode';
        if (notes.memory === undefined)
            throw new Bug(`emu_start: error ${error}`);
        return 'memory';
    }
    get memoryStop() {
        if (this.#memoryStop === undefined)
            throw new Bug('the last run did not end with a memory stop');
        return this.#memoryStop;
    }
    get(name) {
        return name === 'rip' ? this.rip : BigInt.asUintN(64, this.#uc().reg_read_i64(REGISTERS[name]));
    }
    set(name, value) {
        if (name === 'rip')
            this.rip = kaddr(value);
        else
            this.#uc().reg_write_i64(REGISTERS[name], BigInt.asIntN(64, value));
    }
    setGsBase(base) {
        this.#gsBase = base;
        this.#uc().reg_write_i64(REGISTERS.gs_base, BigInt.asIntN(64, base));
    }
    saveContext() {
        const uc = this.#uc();
        const context = uc.context_alloc();
        uc.context_save(context);
        const saved = { context, rip: this.rip, tainted: this.#tainted };
        freeWithOwner.register(saved, { uc, context });
        return { engineContext: saved };
    }
    restoreContext(context) {
        const saved = context.engineContext;
        const uc = this.#uc();
        uc.context_restore(saved.context);
        this.#readBack(uc);
        this.rip = saved.rip;
        this.#tainted = saved.tainted;
    }
    /** The instance, with this vCPU on it. */
    #uc() {
        this.#instance.switchTo(this);
        return this.#instance.uc;
    }
    #readBack(uc) {
        this.rax = BigInt.asUintN(64, uc.reg_read_i64(REGISTERS.rax));
        this.rip = kaddr(uc.reg_read_i64(REGISTERS.rip));
    }
}
/** Contexts lie in the WebAssembly heap; they go when nobody can restore them any more. */
const freeWithOwner = new FinalizationRegistry(({ uc, context }) => uc.context_free(context));
function errorNumber(thrown) {
    const found = /failed with code (\d+)/.exec(String(thrown));
    if (found === null)
        throw thrown;
    return Number(found[1]);
}
//# sourceMappingURL=engine.js.map