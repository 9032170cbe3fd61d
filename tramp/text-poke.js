/*
 * Changing one 5-byte instruction under running CPUs.
 *
 *   int3 over the first byte     a CPU that comes by now traps, and is sent on as by the new instruction
 *   -- every CPU --
 *   the last four bytes
 *   -- every CPU --
 *   the first byte
 *   -- every CPU --
 *
 * Between any two steps other CPUs may run any number of instructions. None of them ever runs a mixture.
 *
 * Kernel: text_poke_bp_batch, poke_int3_handler, arch/x86/kernel/alternative.c
 */
import { decidePoke, ENDBR_BYTES, NOP5, POKE_BYTES, patchBytes } from '../jit/index.js';
import { addrAdd, Bug, errnoName, hex64, KernelError, kaddr, } from '../lib/index.js';
import { NO_BUGS } from './bugs.js';
const INT3 = 0xcc;
const CALL = 0xe8;
const JUMP = 0xe9;
/** Writes live text, and answers for the int3 that it leaves there meanwhile. */
export class TextPoker {
    #machine;
    #sync;
    #bugs;
    #poking;
    /**
     * @param sync lets every CPU pass a point where it cannot hold old bytes; other CPUs may run meanwhile
     * @param bugs those that concern text
     */
    constructor(machine, sync, bugs = NO_BUGS) {
        this.#machine = machine;
        this.#sync = sync;
        this.#bugs = bugs;
        machine.breakpoint = (cpu, address) => this.#handleInt3(cpu, address);
    }
    /** Replaces the instruction at `address` by five bytes: a call, a jump or the nop. */
    poke(address, bytes) {
        if (bytes.length !== POKE_BYTES)
            throw new Bug(`a poke of ${bytes.length} bytes`);
        if (this.#poking !== undefined)
            throw new Bug('a poke within a poke');
        const first = bytes.subarray(0, 1);
        const tail = this.#tail(bytes);
        if (this.#bugs.has('torn-write') || this.#bugs.has('torn-tail')) {
            const halves = [
                () => this.#machine.patchText(address, first),
                () => this.#machine.patchText(addrAdd(address, 1), tail),
            ];
            const [one, other] = this.#bugs.has('torn-write') ? [0, 1] : [1, 0];
            halves[one]?.();
            this.#sync();
            halves[other]?.();
            return;
        }
        this.#poking = { address, bytes };
        try {
            this.#machine.patchText(address, Uint8Array.of(INT3));
            this.#sync();
            this.#machine.patchText(addrAdd(address, 1), tail);
            if (this.#bugs.has('int3-unhandled'))
                this.#poking = undefined;
            this.#sync();
            this.#machine.patchText(address, first);
            this.#sync();
        }
        catch (error) {
            // what ran in between threw: the text must not stay half written
            this.#machine.patchText(address, bytes);
            throw error;
        }
        finally {
            this.#poking = undefined;
        }
    }
    /** All bytes but the first. */
    #tail(bytes) {
        if (this.#bugs.has('poke-short'))
            return bytes.subarray(1, -1);
        if (this.#bugs.has('poke-long'))
            return Uint8Array.of(...bytes.subarray(1), 0x90);
        return bytes.subarray(1);
    }
    /** Does what the new instruction will do. */
    #handleInt3(cpu, address) {
        const poking = this.#poking;
        if (poking === undefined || poking.address !== address)
            return false;
        const next = addrAdd(address, POKE_BYTES);
        const { bytes } = poking;
        const distance = new DataView(bytes.buffer, bytes.byteOffset).getInt32(1, true);
        switch (bytes[0]) {
            case CALL: {
                const rsp = kaddr(cpu.regs.get('rsp') - 8n);
                this.#machine.memory.writeU64(rsp, next);
                cpu.regs.set('rsp', rsp);
                cpu.regs.set('rip', addrAdd(next, distance));
                return true;
            }
            case JUMP:
                cpu.regs.set('rip', addrAdd(next, distance));
                return true;
            case NOP5[0]:
                cpu.regs.set('rip', next);
                return true;
            default:
                throw new Bug(`no handler for ${bytes[0]?.toString(16)} at ${hex64(address)}`);
        }
    }
}
/**
 * Replaces the nop, call or jump at `ip` by another, on every CPU.
 *
 * @param oldAddr where the present one goes; null when a nop is expected
 * @param newAddr where the new one shall go; null for a nop
 * @returns false when there was nothing to do
 * @throws KernelError EINVAL outside kernel and BPF text, ERANGE out of reach, EBUSY when something else stands there
 *
 * Kernel: bpf_arch_text_poke, arch/x86/net/bpf_jit_comp.c
 */
export function textPoke(kernel, ip, type, oldAddr, newAddr) {
    kernel.fail.pass('poke');
    const { memory } = kernel.machine;
    const ibt = kernel.config.ibt ?? false;
    const isText = kernel.isPokableText(ip);
    // an ENDBR may come first
    const sizeBytes = ibt ? ENDBR_BYTES + POKE_BYTES : POKE_BYTES;
    const prior = isText ? memory.bytes(ip, sizeBytes) : new Uint8Array(sizeBytes);
    const expected = kernel.bugs.has('poke-unchecked') ? patchBytes(type, ip, oldAddr) : undefined;
    const { ret, write, offset } = decidePoke(kernel.revision, { ip, type, oldAddr, newAddr, isText, ibt }, expected ?? prior);
    if (ret < 0)
        throw new KernelError(errnoName(-ret), 'bpf_arch_text_poke', `at ${hex64(ip)}`);
    if (write === undefined)
        return false;
    kernel.text.poke(addrAdd(ip, offset), write);
    return true;
}
//# sourceMappingURL=text-poke.js.map