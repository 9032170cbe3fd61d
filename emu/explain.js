/*
 * From how an engine's run ended to what the guest did wrong. Slow on purpose: this runs once, when a
 * call is over.
 */
import { hex64 } from '../lib/index.js';
import { isCanonical } from './layout.js';
/** Intel SDM volume 3, chapter 6. */
const VECTOR_NAMES = [
    ...['#DE', '#DB', 'NMI', '#BP', '#OF', '#BR', '#UD', '#NM', '#DF', 'coprocessor overrun'],
    ...['#TS', '#NP', '#SS', '#GP', '#PF', 'reserved', '#MF', '#AC', '#MC', '#XM'],
];
const Vector = { DE: 0, BP: 3, UD: 6, SS: 12, GP: 13 };
function counted(instructions) {
    if (Number.isNaN(instructions))
        return '';
    return instructions === 1 ? ' after 1 instruction' : ` after ${instructions} instructions`;
}
/** The fault for a run that ended with anything but the end of the call. */
export function explainStop(stop, place, memory, locate) {
    const { cpu, cpuId, instructions } = place;
    const rip = cpu.stopRip;
    const { kind, what, freed, ...rest } = causeOf(stop, cpu, memory);
    const location = freed ?? locate(rip);
    const at = location === undefined
        ? hex64(rip)
        : `${hex64(rip)} (${location.symbol}+0x${location.offset.toString(16)}${location.step ? `, ${location.step}` : ''})`;
    return {
        kind,
        cpu: cpuId,
        rip,
        ...rest,
        ...(location && { symbol: { name: location.symbol, offset: location.offset } }),
        ...(location?.step !== undefined && { step: location.step }),
        instructions,
        detail: `${what}, at ${at} on CPU ${cpuId}${counted(instructions)}`,
    };
}
function causeOf(stop, cpu, memory) {
    switch (stop) {
        case 'memory':
            return memoryCause(cpu, memory);
        case 'exception':
            return exceptionCause(cpu.vector, cpu.stopRip, memory);
        case 'invalid-opcode':
            return { kind: 'invalid-opcode', what: 'invalid opcode', vector: Vector.UD };
        case 'untranslatable':
            return {
                kind: 'invalid-opcode',
                what: 'invalid opcode, here or in the straight-line code that follows',
                vector: Vector.UD,
            };
        case 'syscall':
            return { kind: 'syscall', what: 'a system call' };
        case 'port-io':
            return { kind: 'port-io', what: 'port input or output' };
        case 'budget':
        case 'stop-at':
            return { kind: 'step-limit', what: 'the step limit is reached' };
        case 'time-limit':
            return { kind: 'time-limit', what: 'the time limit is reached' };
        case 'crashed':
            return { kind: 'host-crash', what: `the process that ran the guest is gone (${cpu.crash})` };
        case 'halted':
            return { kind: 'halt', what: 'hlt outside the end of the call' };
    }
}
function exceptionCause(vector, rip, memory) {
    const name = VECTOR_NAMES[vector];
    switch (vector) {
        case Vector.DE:
            return { kind: 'divide-error', what: 'divide error', vector };
        case Vector.BP:
            return textCause(rip, memory) ?? { kind: 'int3', what: 'breakpoint (int3)', vector };
        case Vector.UD:
            return { kind: 'invalid-opcode', what: 'invalid opcode', vector };
        case Vector.SS:
        case Vector.GP:
            return { kind: 'general-protection', what: `general protection (${name})`, vector };
        default:
            return {
                kind: 'interrupt',
                what: `exception or interrupt ${vector}${name ? ` (${name})` : ''}`,
                vector,
            };
    }
}
/** Running text that is not live: the int3 it is filled with is how it shows. */
function textCause(rip, memory) {
    const freed = memory.freedTextAt(rip);
    if (freed !== undefined) {
        const offset = Number(rip - freed.start);
        return {
            kind: 'freed-image',
            what: `ran freed text: ${freed.name}+0x${offset.toString(16)}`,
            address: rip,
            freed: { symbol: freed.name, offset },
        };
    }
    if (memory.regionAt(rip) !== undefined)
        return undefined;
    return { kind: 'fetch-unmapped', what: 'ran into unmapped memory', address: rip };
}
function memoryCause(cpu, memory) {
    const { access, cause, address, sizeBytes } = cpu.memoryStop;
    if (access === 'fetch')
        return fetchCause(cause, address, memory);
    const verb = access === 'read' ? 'read' : 'write';
    const touched = `${verb} of ${sizeBytes} bytes at ${hex64(address)}`;
    const where = { address, size: sizeBytes };
    if (!isCanonical(address)) {
        return {
            kind: 'general-protection',
            what: `${touched}: not a canonical address`,
            vector: Vector.GP,
            ...where,
        };
    }
    if (cause === 'protected') {
        const region = memory.regionAt(address);
        // Text chunks hold pages that nothing owns: they are text all the same.
        const kind = region?.perms === 'r' ? 'write-rodata' : 'write-text';
        const target = region?.name ?? memory.freedTextAt(address)?.name ?? 'free text';
        return { kind, what: `${touched}: ${target} is not writable`, ...where };
    }
    const guarded = memory.guardedBy(address);
    if (guarded !== undefined) {
        return { kind: 'stack-overflow', what: `${touched}: guard page of ${guarded.name}`, ...where };
    }
    const freed = memory.freedDataAt(address);
    const gone = freed === undefined ? ': nothing is mapped there' : `: ${freed.name} was there, and is freed`;
    const hint = address < 4096n ? ': a null pointer' : gone;
    return {
        kind: access === 'read' ? 'read-unmapped' : 'write-unmapped',
        what: `${touched}${hint}`,
        ...where,
    };
}
function fetchCause(cause, address, memory) {
    if (!isCanonical(address)) {
        const what = `jumped to ${hex64(address)}: not a canonical address`;
        return { kind: 'general-protection', what, vector: Vector.GP, address };
    }
    const region = memory.regionAt(address);
    // An engine that stops at address 0 does not know what is there.
    if (cause === 'protected' || (region !== undefined && region.perms !== 'rx')) {
        return { kind: 'fetch-data', what: `ran ${region?.name ?? 'data'}, which is not executable`, address };
    }
    const guarded = memory.guardedBy(address);
    if (guarded !== undefined) {
        return { kind: 'fetch-unmapped', what: `ran into the guard page of ${guarded.name}`, address };
    }
    return textCause(address, memory) ?? { kind: 'fetch-unmapped', what: 'ran into unmapped memory', address };
}
/** A locator that knows the names of regions, for a machine that was given none. */
export function regionLocator(memory) {
    return (address) => {
        const region = memory.regionAt(address);
        return region && { symbol: region.name, offset: Number(address - region.start) };
    };
}
//# sourceMappingURL=explain.js.map