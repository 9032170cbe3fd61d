/*
 * From the signal that stopped a guest to why it stopped, in the words of every engine.
 *
 * Instructions that a process may not execute show as #GP. Those that end a run on every engine (`hlt`,
 * port I/O, `int`) are told apart by what stands at rip; the others stay #GP, where Unicorn, which runs
 * guests in ring 0, executes them.
 */
import { Bug, kaddr } from '../../lib/index.js';
import { isCanonical } from '../layout.js';
import { accessAt, decode, nonCanonicalAccess } from './decode.js';
import { Signal } from './linux.js';
const Vector = { DB: 1, BP: 3, OF: 4, SS: 12, GP: 13, PF: 14 };
const LONGEST_INSTRUCTION = 15;
const WRITE_ACCESS = 2;
const INSTRUCTION_FETCH = 0x10;
const INT3 = 0xcc;
const INT1 = 0xf1;
export function explainSignal(stopped, guest) {
    switch (stopped.signal) {
        case Signal.USR1:
            return { stop: 'time-limit', stopRip: kaddr(stopped.rip) };
        case Signal.ILL:
            return { stop: 'invalid-opcode', stopRip: kaddr(stopped.rip) };
        case Signal.SYS:
            return systemCall(stopped, guest);
        case Signal.TRAP:
            return trap(stopped, guest);
        case Signal.FPE:
            return { stop: 'exception', stopRip: kaddr(stopped.rip), vector: stopped.vector };
        case Signal.SEGV:
        case Signal.BUS:
            return accessFault(stopped, guest);
        default:
            throw new Bug(`the runner reports signal ${stopped.signal}`);
    }
}
/** `syscall`, `sysenter` or `int 0x80`: rip is behind it. */
function systemCall({ rip }, guest) {
    const stopRip = kaddr(rip - 2n);
    const [first, second] = guest.bytesAt(stopRip, 2);
    const at = { stopRip, rip: stopRip };
    if (first === 0xcd && second !== undefined)
        return { stop: 'exception', vector: second, ...at };
    return { stop: 'syscall', ...at };
}
/** int3 and int1, of which rip is behind; or the guest's own trap flag. */
function trap({ vector, rip }, guest) {
    const [before] = guest.bytesAt(rip - 1n, 1);
    const single = vector === Vector.BP ? INT3 : INT1;
    const behindInt = vector === Vector.BP ? rip - 2n : rip;
    return { stop: 'exception', vector, stopRip: kaddr(before === single ? rip - 1n : behindInt) };
}
function accessFault(stopped, guest) {
    const { vector, error, address, rip } = stopped;
    if (vector === Vector.PF && (error & INSTRUCTION_FETCH) !== 0)
        return fetchStop(address, guest);
    if (!isCanonical(rip))
        return { ...fetchStop(rip, guest), branched: true };
    const decoded = decode(guest.bytesAt(rip, LONGEST_INSTRUCTION), rip, stopped.registers);
    if (vector === Vector.PF)
        return pageFault(stopped, guest, decoded);
    if (vector === Vector.OF)
        return { stop: 'exception', vector, stopRip: kaddr(rip - 2n) };
    if (vector !== Vector.GP && vector !== Vector.SS) {
        return { stop: 'exception', vector, stopRip: kaddr(rip) };
    }
    return protectionFault(stopped, guest, decoded);
}
function fetchStop(address, guest) {
    const cause = guest.permsAt(address) === undefined ? 'unmapped' : 'protected';
    const at = kaddr(address);
    return {
        stop: 'memory',
        stopRip: at,
        rip: at,
        memory: { access: 'fetch', cause, address: at, sizeBytes: 1 },
    };
}
function pageFault(stopped, guest, decoded) {
    const { address, rip } = stopped;
    const writes = (stopped.error & WRITE_ACCESS) !== 0;
    const access = decoded && accessAt(decoded, address, writes);
    return {
        stop: 'memory',
        stopRip: kaddr(rip),
        memory: {
            access: writes ? 'write' : 'read',
            cause: guest.permsAt(address) === undefined ? 'unmapped' : 'protected',
            address: kaddr(access?.address ?? address),
            sizeBytes: access?.sizeBytes ?? 1,
        },
    };
}
function protectionFault(stopped, guest, decoded) {
    const stopRip = kaddr(stopped.rip);
    if (decoded !== undefined) {
        switch (decoded.kind) {
            case 'hlt':
                return { stop: 'halted', stopRip, rip: kaddr(stopped.rip + BigInt(decoded.sizeBytes)) };
            case 'port-io':
                return { stop: 'port-io', stopRip };
            case 'int':
                return { stop: 'exception', vector: decoded.vector, stopRip };
            case 'other': {
                const access = nonCanonicalAccess(decoded);
                if (access !== undefined) {
                    const { address, sizeBytes, reads } = access;
                    const memory = { access: reads ? 'read' : 'write', cause: 'unmapped', sizeBytes };
                    return { stop: 'memory', stopRip, memory: { ...memory, address: kaddr(address) } };
                }
                // CPUs differ in whether they refuse to go where there is no address, or are there already.
                const target = decoded.target && targetValue(decoded.target, guest);
                if (target !== undefined && !isCanonical(target)) {
                    return { ...fetchStop(target, guest), branched: true };
                }
            }
        }
    }
    return { stop: 'exception', vector: stopped.vector, stopRip };
}
function targetValue(target, guest) {
    if ('value' in target)
        return target.value;
    const bytes = guest.bytesAt(target.at, 8);
    if (bytes.length < 8)
        return undefined;
    return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
}
//# sourceMappingURL=stop.js.map