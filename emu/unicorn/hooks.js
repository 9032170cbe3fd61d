/*
 * The hooks every vCPU has from the start: they count instructions, stop runs, and note in the control
 * block what went wrong. They must be there before any code runs: a hook added later does not fire in
 * code that is translated already.
 *
 * On x86-64 hosts they are a few bytes of native code: 8 % on a traced call, where a JavaScript
 * callback would cost 190 ns for every instruction. Elsewhere they are those callbacks, with the same
 * results.
 */
import koffi from 'koffi';
import { Bug } from '../../lib/index.js';
import { Offset, StopCode } from './control-block.js';
import { nativePages } from './native-code.js';
const HookType = { INTR: 1, INSN: 2, CODE: 4, MEM_INVALID: 0x3f0 };
/** uc_x86_insn: the only instructions that can be hooked and that concern us. */
const Insn = { IN: 218, OUT: 500, SYSCALL: 699, SYSENTER: 700 };
/** Installs the hooks on one engine instance. */
export function installHooks(library, uc, hooks, block) {
    const handle = new BigUint64Array(1);
    const out = Number(koffi.address(handle));
    const add = (type, callback, insn = 0) => {
        const error = library.uc_hook_add(uc, out, type, callback, block, 1, 0, insn);
        if (error !== 0)
            throw new Bug(`uc_hook_add(${type}): error ${error}`);
    };
    add(HookType.CODE, hooks.code);
    add(HookType.MEM_INVALID, hooks.memory);
    add(HookType.INTR, hooks.interrupt);
    add(HookType.INSN, hooks.syscall, Insn.SYSCALL);
    add(HookType.INSN, hooks.syscall, Insn.SYSENTER);
    add(HookType.INSN, hooks.portIn, Insn.IN);
    add(HookType.INSN, hooks.portOut, Insn.OUT);
}
/** One machine's hooks in native code, or in JavaScript where that is not possible (or asked for). */
export function makeHooks(library, kind) {
    return (kind === 'native' ? nativeHooks() : undefined) ?? javascriptHooks(library);
}
/*
 * The native callbacks, System V. `b` is the control block; those that stop the run end in a tail call
 * of uc_emu_stop, for which rdi still holds the engine.
 */
const CODE = [
    // (rdi uc, rsi address, edx size, rcx b)
    [0x48, 0x89, 0x71, Offset.lastRip], //                    mov   [rcx + lastRip], rsi
    [0x48, 0x3b, 0x71, Offset.stopAt], //                     cmp   rsi, [rcx + stopAt]
    [0x74, 0x07], //                                          je    1f
    [0x48, 0x83, 0x29, 0x01], //                              sub   qword [rcx + budget], 1
    [0x7c, 0x11], //                                          jl    2f
    [0xc3], //                                                ret
    // A hook of the instruction before may have stopped the run: its reason stands.
    [0x83, 0x79, Offset.stopped, 0], //                    1: cmp   dword [rcx + stopped], 0
    [0x75, 0x07], //                                          jne   3f
    [0xc7, 0x41, Offset.stopped, StopCode.stopAt, 0, 0, 0], //mov   dword [rcx + stopped], stopAt
    [0xff, 0x61, Offset.emuStop], //                       3: jmp   [rcx + emuStop]
    [0x83, 0x79, Offset.stopped, 0], //                    2: cmp   dword [rcx + stopped], 0
    [0x75, 0x07], //                                          jne   4f
    [0xc7, 0x41, Offset.stopped, StopCode.budget, 0, 0, 0], //mov   dword [rcx + stopped], budget
    [0xff, 0x61, Offset.emuStop], //                       4: jmp   [rcx + emuStop]
].flat();
const MEMORY = [
    // (rdi uc, esi type, rdx address, ecx size, r8 value, r9 b) -> bool: nothing was mended
    [0x41, 0x89, 0x71, Offset.memType], //     mov   [r9 + memType], esi
    [0x41, 0x89, 0x49, Offset.memSize], //     mov   [r9 + memSize], ecx
    [0x49, 0x89, 0x51, Offset.memAddress], //  mov   [r9 + memAddress], rdx
    [0x31, 0xc0], //                           xor   eax, eax
    [0xc3], //                                 ret
].flat();
/** The end of the hooks below, with the control block in rdx: note where, why, and stop. */
const stopWith = (code) => [
    [0x48, 0x8b, 0x42, Offset.lastRip], //        mov   rax, [rdx + lastRip]
    [0x48, 0x89, 0x42, Offset.eventRip], //       mov   [rdx + eventRip], rax
    [0x48, 0x8b, 0x42, Offset.budget], //         mov   rax, [rdx + budget]
    [0x48, 0x89, 0x42, Offset.eventBudget], //    mov   [rdx + eventBudget], rax
    [0xc7, 0x42, Offset.stopped, code, 0, 0, 0], // mov dword [rdx + stopped], code
    [0xff, 0x62, Offset.emuStop], //              jmp   [rdx + emuStop]
].flat();
const INTERRUPT = [
    // (rdi uc, esi vector, rdx b)
    ...[0x89, 0x72, Offset.vector], // mov [rdx + vector], esi
    ...stopWith(StopCode.exception),
];
const SYSCALL = [
    // (rdi uc, rsi b)
    ...[0x48, 0x89, 0xf2], // mov rdx, rsi
    ...stopWith(StopCode.syscall),
];
const PORT_IN = [
    // (rdi uc, esi port, edx size, rcx b) -> u32 value
    ...[0x48, 0x89, 0xca], // mov rdx, rcx
    ...stopWith(StopCode.portIo),
];
const PORT_OUT = [
    // (rdi uc, esi port, edx size, ecx value, r8 b)
    ...[0x4c, 0x89, 0xc2], // mov rdx, r8
    ...stopWith(StopCode.portIo),
];
let native;
/** The native callbacks, in one executable page made once per process; undefined where that cannot be. */
function nativeHooks() {
    if (native !== undefined)
        return native;
    const page = nativePages(4096);
    if (page === undefined)
        return undefined;
    let used = 0;
    const place = (code) => {
        const at = used;
        page.bytes.set(code, at);
        used = (at + code.length + 15) & ~15;
        return page.pointer + at;
    };
    native = {
        code: place(CODE),
        memory: place(MEMORY),
        interrupt: place(INTERRUPT),
        syscall: place(SYSCALL),
        portIn: place(PORT_IN),
        portOut: place(PORT_OUT),
    };
    return native;
}
let javascript;
/** The same as JavaScript callbacks, made once per process (koffi has room for a few thousand only). */
function javascriptHooks(library) {
    if (javascript !== undefined)
        return javascript;
    const register = (prototype, callback) => Number(koffi.register(callback, koffi.pointer(koffi.proto(prototype))));
    const views = new Map();
    const view = (block) => {
        let found = views.get(block);
        if (found === undefined) {
            found = new DataView(koffi.view(block, Offset.values));
            views.set(block, found);
        }
        return found;
    };
    const stop = (uc, block, code) => {
        const words = view(block);
        // A hook of the instruction before may have stopped the run: its reason stands.
        if (words.getUint32(Offset.stopped, true) !== 0) {
            library.uc_emu_stop(uc);
            return;
        }
        words.setBigUint64(Offset.eventRip, words.getBigUint64(Offset.lastRip, true), true);
        words.setBigUint64(Offset.eventBudget, words.getBigUint64(Offset.budget, true), true);
        words.setUint32(Offset.stopped, code, true);
        library.uc_emu_stop(uc);
    };
    javascript = {
        code: register('void (uintptr_t uc, uint64_t address, uint32_t size, uintptr_t block)', (uc, address, _size, block) => {
            const words = view(block);
            const rip = BigInt.asUintN(64, BigInt(address));
            words.setBigUint64(Offset.lastRip, rip, true);
            if (words.getBigUint64(Offset.stopAt, true) === rip)
                return stop(uc, block, StopCode.stopAt);
            const budget = words.getBigInt64(Offset.budget, true) - 1n;
            words.setBigInt64(Offset.budget, budget, true);
            if (budget < 0n)
                stop(uc, block, StopCode.budget);
        }),
        memory: register('bool (uintptr_t uc, int type, uint64_t address, int size, int64_t value, uintptr_t block)', (_uc, type, address, size, _value, block) => {
            const words = view(block);
            words.setUint32(Offset.memType, type, true);
            words.setUint32(Offset.memSize, size, true);
            words.setBigUint64(Offset.memAddress, BigInt.asUintN(64, BigInt(address)), true);
            return false;
        }),
        interrupt: register('void (uintptr_t uc, uint32_t vector, uintptr_t block)', (uc, vector, block) => {
            view(block).setUint32(Offset.vector, vector, true);
            stop(uc, block, StopCode.exception);
        }),
        syscall: register('void (uintptr_t uc, uintptr_t block)', (uc, block) => stop(uc, block, StopCode.syscall)),
        portIn: register('uint32_t (uintptr_t uc, uint32_t port, int size, uintptr_t block)', (uc, _port, _size, block) => {
            stop(uc, block, StopCode.portIo);
            return 0;
        }),
        portOut: register('void (uintptr_t uc, uint32_t port, int size, uint32_t value, uintptr_t block)', (uc, _port, _size, _value, block) => stop(uc, block, StopCode.portIo)),
    };
    return javascript;
}
//# sourceMappingURL=hooks.js.map