import type { Kaddr } from '../lib/index.ts';
import type { Fault, Locator } from './fault.ts';
import type { Layout, LayoutName } from './layout.ts';
/** What the pages of a region allow a guest to do. Nothing is ever writable and executable at once. */
export type Perms = 'r' | 'rw' | 'rx';
/** The engines there are adapters for. */
export type EngineName = 'unicorn' | 'unicorn.js' | 'native';
export interface MachineOptions {
    /**
     * Default `unicorn`: the native library. `unicorn.js` is an optional peer package. `native` is the host's
     * own CPU, x86-64 Linux only; see docs/fidelity.md for how it differs.
     */
    readonly engine?: EngineName;
    /** Number of vCPUs, 1 to 64. Default 1. */
    readonly cpus?: number;
    /** Instructions after which a call ends with a `step-limit` fault. Default 10,000,000. */
    readonly stepLimit?: number;
    /**
     * False lets the engine `native` run at full speed: call(), callAll(), and run() with neither `steps` nor
     * `stopAt`. Such a run is not counted (`instructions` is NaN) and no limit of steps holds for it, be it the
     * machine's or its own; it ends with a `time-limit` fault after `timeLimitMs`. All else is counted as ever.
     * The other engines count for little and ignore it. Default true: `native` counts by a trap after each
     * instruction, which takes microseconds.
     */
    readonly counting?: boolean;
    /**
     * Milliseconds on a CPU after which `native` stops an uncounted run, or a counted one that makes no
     * progress. Default 10,000. A guest that gets no CPU time is given more by the clock, up to four times as much.
     */
    readonly timeLimitMs?: number;
    /**
     * Where things lie; see layout.ts. Default `kernel`: the kernel's own addresses. With `native` it is `user`,
     * which the other engines can have too, for equal addresses.
     */
    readonly layout?: LayoutName;
    /** Keep what each vCPU executes, reads and writes; see Vcpu.recorded. Default false. Engine `unicorn` only. */
    readonly record?: boolean;
    /** Names the places of faults; may be set later: `machine.locate = ...`. */
    readonly locate?: Locator;
}
/** One thing that an instruction did. What it reads and writes comes behind its own `execute`. */
export interface AccessEvent {
    readonly kind: 'execute' | 'read' | 'write';
    readonly address: Kaddr;
    /** Bytes: of the instruction, or of the access. */
    readonly sizeBytes: number;
}
/**
 * A machine: guest memory and 1 to 64 vCPUs on it. One vCPU runs at a time, in the caller's thread, but for
 * callAll() on the engine `native`.
 */
export interface Machine {
    /** The engine and its version, e.g. `unicorn 2.0.1`. */
    readonly engine: string;
    readonly layout: Layout;
    readonly memory: GuestMemory;
    readonly percpu: PerCpu;
    readonly cpus: readonly Vcpu[];
    /** Names the places of faults. */
    locate: Locator;
    /**
     * Has int3 first, before it becomes a fault; see BreakpointHandler. Kernel: the int3 notifiers.
     */
    breakpoint: BreakpointHandler | undefined;
    /**
     * Has a load from where nothing is, or from a bad address, before it becomes a fault; see LoadFaultHandler.
     * Kernel: fixup_exception.
     */
    loadFault: LoadFaultHandler | undefined;
    /**
     * Writes text: the one function that changes what guests execute. Every vCPU sees the new bytes from
     * its next instruction on. Meant for text that runs and for freshly allocated text alike.
     *
     * @throws InputError when a byte of the range is not in executable memory; nothing is written then.
     */
    patchText(address: Kaddr, bytes: Uint8Array): void;
    /**
     * Makes calls on different vCPUs: at the same time, in threads on the host's CPUs, with the engine
     * `native`; one after the other with the others. Returns when all have returned or faulted.
     * @returns the results in the order of the calls
     * @throws InputError as Vcpu.call(), or when two are for one CPU; nothing has run then
     */
    callAll(calls: readonly ParallelCall[]): CallResult[];
    /** The task struct in `gs:[percpu.vars.currentTask]` of a CPU. Kernel: `current`. */
    current(cpu: number): Kaddr;
    /** Makes `task` the current task of a CPU. The task may be any data address. */
    setCurrent(cpu: number, task: Kaddr): void;
    /** The whole machine as it is now: memory, mappings, allocators, vCPUs with their calls in flight. */
    snapshot(): Snapshot;
    /** Puts the machine back into the state of a snapshot of its own. A snapshot may be restored many times. */
    restore(snapshot: Snapshot): void;
    /** Gives everything back. Using the machine, or a view of its memory, after that is an error. */
    close(): void;
}
/**
 * Is shown an int3 that a vCPU hit. True: it has set rip (and what else it took)
 * so that the call can go on as if nothing had happened. False: the int3 is a fault.
 */
export type BreakpointHandler = (cpu: Vcpu, address: Kaddr) => boolean;
/**
 * Is shown the address of an instruction whose load cannot be done. True: it has set rip (and what else it took)
 * so that the call goes on. False: it is a fault.
 */
export type LoadFaultHandler = (cpu: Vcpu, address: Kaddr) => boolean;
/** The state of a machine at one time; opaque. */
export interface Snapshot {
    /** Bytes of guest memory held by it. */
    readonly sizeBytes: number;
}
/** A mapped range of guest memory with one name and one protection. */
export interface Region {
    readonly name: string;
    readonly start: Kaddr;
    readonly sizeBytes: number;
    readonly perms: Perms;
}
/**
 * Guest memory. The host reads and writes it directly, with no call into the engine; text is the
 * exception: it changes through `Machine.patchText` only.
 *
 * Sizes are bytes. Ranges that are not mapped, or not of the kind asked for, are an InputError and
 * change nothing. Layout: see layout.ts.
 */
export interface GuestMemory {
    /**
     * Maps zeroed pages (int3 for `rx`) at a fixed, page-aligned, canonical address outside the areas of
     * the allocators below (layout.ts). Mappings cost time that grows with their number: use few.
     * @throws InputError for a bad address or size, or when any page is taken
     * @throws KernelError ENOMEM beyond about a thousand mappings, those of vmalloc included
     */
    map(address: Kaddr, sizeBytes: number, perms: Perms, name: string): Region;
    /** Takes a mapped region away. A text region is remembered as freed: running it names it. */
    unmap(region: Region): void;
    /** The region that covers an address. */
    regionAt(address: Kaddr): Region | undefined;
    /**
     * Executable pages in the modules area, for images and module text; filled with int3. Sizes are
     * rounded up to whole pages. Kernel: `bpf_jit_alloc_exec_page` / `module_alloc`.
     * @param options.align a power of two, at least and by default 4096
     */
    allocText(sizeBytes: number, name: string, options?: {
        readonly align?: number;
    }): Kaddr;
    /**
     * Frees what allocText or allocKernelText gave: fills it with int3 and remembers its name, so that
     * running it is a `freed-image` fault. The addresses come back into use late, the oldest first.
     * Simplified: a guest that reads freed text reads int3 (see pages.ts for why it stays mapped).
     */
    freeText(address: Kaddr): void;
    /** Writable pages in the modules area: `.data` and `.bss` of a module, within 2 GiB of its text. */
    allocData(sizeBytes: number, name: string, options?: {
        readonly align?: number;
    }): Kaddr;
    /** As allocData, but guests may only read. The host fills it with write(). */
    allocRodata(sizeBytes: number, name: string, options?: {
        readonly align?: number;
    }): Kaddr;
    /** Frees what allocData, allocRodata or allocKernelData gave. */
    freeData(address: Kaddr): void;
    /** Executable pages in the kernel text area below vmlinux, for the lab's own runtime. */
    allocKernelText(sizeBytes: number, name: string): Kaddr;
    /** Writable (or read-only, perms `r`) pages within 2 GiB of the kernel text. */
    allocKernelData(sizeBytes: number, name: string, perms?: 'rw' | 'r'): Kaddr;
    /**
     * Zeroed memory in the direct map, `align` (default 8, a power of two up to 4096) bytes aligned.
     * Kernel: `kzalloc`. Simplified: small objects share pages, so an overrun into a neighbour is not a fault.
     */
    kmalloc(sizeBytes: number, name?: string, align?: number): Kaddr;
    kfree(address: Kaddr): void;
    /** Zeroed pages between two guard pages: touching a guard is a `stack-overflow` fault. Kernel: `vzalloc`. */
    vmalloc(sizeBytes: number, name?: string): Kaddr;
    vfree(address: Kaddr): void;
    readU8(address: Kaddr): number;
    readU16(address: Kaddr): number;
    readU32(address: Kaddr): number;
    readU64(address: Kaddr): bigint;
    writeU8(address: Kaddr, value: number): void;
    writeU16(address: Kaddr, value: number): void;
    writeU32(address: Kaddr, value: number): void;
    /** Values are taken modulo 2^64, so -1n is all ones. */
    writeU64(address: Kaddr, value: bigint): void;
    /**
     * A live view of `length` bytes of one region: no copy, always current. For text a view is for reading.
     * Valid until the region is freed, the machine is restored or closed.
     */
    bytes(address: Kaddr, length: number): Uint8Array;
    /** Copies bytes into data (`rw` or `r`) of one region; refuses text. */
    write(address: Kaddr, bytes: Uint8Array): void;
}
/**
 * Per-CPU memory. A per-CPU pointer is an offset, the same on every CPU, that guests use with `gs:`;
 * CPU n's copy lies at `base(n) + offset`. Kernel: `alloc_percpu`, `per_cpu_ptr`, `this_cpu_ptr`.
 */
export interface PerCpu {
    /** Zeroed memory on every CPU. Kernel: `__alloc_percpu(size, align)`. @param align a power of two, up to 4096 */
    alloc(sizeBytes: number, align: number): number;
    /** Kernel: `free_percpu`. */
    free(offset: number): void;
    /** Where CPU `cpu`'s copy of a per-CPU offset lies. */
    address(offset: number, cpu: number): Kaddr;
    /** GS_BASE of a CPU. */
    base(cpu: number): Kaddr;
    /** Offsets of the static per-CPU words. */
    readonly vars: PerCpuVars;
}
/** Offsets (for use with `gs:`) of the words that every per-CPU area starts with. */
export interface PerCpuVars {
    /** u64: base(cpu) itself, so that `mov rax, gs:[thisCpuOff]` + offset is this_cpu_ptr. Kernel: `this_cpu_off`. */
    readonly thisCpuOff: number;
    /** u32. Kernel: `cpu_number`. */
    readonly cpuNumber: number;
    /** u64 pointer. Kernel: `current_task`. */
    readonly currentTask: number;
    /** u32. Kernel: `__preempt_count`. */
    readonly preemptCount: number;
    /** u64 at 0x28, where gcc's stack protector looks for it. Kernel: `fixed_percpu_data.stack_canary`. */
    readonly stackCanary: number;
}
/** The registers that can be read and written by name. Take the flags by `pushfq` in guest code. */
export type RegisterName = 'rax' | 'rcx' | 'rdx' | 'rbx' | 'rsp' | 'rbp' | 'rsi' | 'rdi' | 'r8' | 'r9' | 'r10' | 'r11' | 'r12' | 'r13' | 'r14' | 'r15' | 'rip';
/** Registers of a vCPU, as unsigned 64-bit bigints. */
export interface Registers {
    get(name: RegisterName): bigint;
    set(name: RegisterName, value: bigint): void;
}
/** The stack of a vCPU: `base` <= rsp <= `top`; `guard` is the page below it. */
export interface Stack {
    readonly base: Kaddr;
    readonly top: Kaddr;
    readonly guard: Kaddr;
}
export interface CallOptions {
    /** Instructions this call may execute; default the machine's stepLimit. */
    readonly steps?: number;
}
export interface BeginOptions {
    /** Instructions this call may execute in all; default the machine's stepLimit. */
    readonly steps?: number;
    /** Start on another stack: the address just above it, 16-byte aligned. Default: the vCPU's own. */
    readonly stackTop?: Kaddr;
}
export interface RunOptions {
    /**
     * Execute at most this many instructions, exactly. Default: no more than what is left of the step
     * limit. Each iteration of a repeated string instruction counts.
     */
    readonly steps?: number;
    /** Stop before the instruction at this address, unless it is the one the run starts with. */
    readonly stopAt?: Kaddr;
}
export interface CallResult {
    /** RAX at the return; 0n when the call ended in a fault. */
    readonly ret: bigint;
    /** Instructions executed, the final `ret` included; NaN when they were not counted (MachineOptions.counting). */
    readonly instructions: number;
    /** What went wrong; null when the function returned. */
    readonly fault: Fault | null;
}
/** One of the calls of Machine.callAll(). */
export interface ParallelCall {
    /** The vCPU's number. */
    readonly cpu: number;
    readonly fn: Kaddr;
    readonly args?: readonly bigint[];
    readonly options?: CallOptions;
}
export interface RunResult {
    /** `returned`: the call is over, its result in rax. `steps`, `stop`: it can go on. `fault`: it is over. */
    readonly reason: 'returned' | 'steps' | 'stop' | 'fault';
    /** Instructions executed by this run; NaN when they were not counted. */
    readonly instructions: number;
    readonly fault: Fault | null;
}
/** One virtual CPU: registers, a stack, GS_BASE at its per-CPU area. */
export interface Vcpu {
    readonly id: number;
    readonly regs: Registers;
    readonly stack: Stack;
    /** Whether a call begun with begin() has neither returned nor faulted. */
    readonly inCall: boolean;
    /**
     * Calls a function as the kernel would: System V arguments, rsp 16-byte aligned before the call,
     * direction flag clear. Returns when it returns or faults.
     *
     * @throws InputError for more than 6 arguments, or when a call is in flight; nothing has changed then.
     */
    call(fn: Kaddr, args?: readonly bigint[], options?: CallOptions): CallResult;
    /** Sets a call up without executing anything. @throws InputError as call(). */
    begin(fn: Kaddr, args?: readonly bigint[], options?: BeginOptions): void;
    /** Executes part or the rest of the call in flight. @throws InputError when there is none. */
    run(options?: RunOptions): RunResult;
    /** Executes one instruction of the call in flight. */
    step(): RunResult;
    /**
     * What was executed, read and written since the last time, oldest first; the `hlt` that ends a call included.
     * @throws InputError on a machine made without `record`, or after more than 2^18 events
     */
    recorded(): readonly AccessEvent[];
    /** Drops the call in flight, if any. Memory stays as it is. */
    abort(): void;
    /** The registers and the call in flight, to be put back later, on this vCPU or on another one of this machine. */
    saveContext(): VcpuContext;
    /** Puts a saved context back. GS_BASE stays this CPU's own: a task that moves sees its new CPU. */
    restoreContext(context: VcpuContext): void;
}
/** Registers and call in flight of a vCPU; opaque, may be restored many times. */
export interface VcpuContext {
    /** The rip it was saved at. */
    readonly rip: Kaddr;
}
