/*
 * What a vCPU executes, reads and writes, in order: hooks append a record to a buffer that TypeScript
 * reads afterwards. Like the hooks that every vCPU has, they must be there before any code runs, so a
 * machine is made with them or without. They are native code, for x86-64 Linux hosts.
 *
 * The recorder's block:            a record, 16 bytes:
 *   0  cursor  u64                   0   address  u64
 *   8  end     u64                   8   size     u32
 *                                    12  kind     u32  0 execute, 16 read, 17 write (uc_mem_type)
 */
import koffi from 'koffi';
import { Bug, InputError, kaddr } from '../../lib/index.js';
import { nativePages } from './native-code.js';
const RECORD_BYTES = 16;
const RECORDS = 1 << 18;
const HookType = { CODE: 4, MEM_READ: 1 << 10, MEM_WRITE: 1 << 11 };
const KINDS = { 0: 'execute', 16: 'read', 17: 'write' };
const EXECUTED = [
    // (rdi uc, rsi address, edx size, rcx block)
    [0x48, 0x8b, 0x01], //                          mov  rax, [rcx]
    [0x48, 0x3b, 0x41, 0x08], //                    cmp  rax, [rcx + 8]
    [0x73, 0x14], //                                jae  full
    [0x48, 0x89, 0x30], //                          mov  [rax], rsi
    [0x89, 0x50, 0x08], //                          mov  [rax + 8], edx
    [0xc7, 0x40, 0x0c, 0, 0, 0, 0], //              mov  dword [rax + 12], 0
    [0x48, 0x83, 0xc0, RECORD_BYTES], //            add  rax, 16
    [0x48, 0x89, 0x01], //                          mov  [rcx], rax
    [0xc3], //                                full: ret
].flat();
const ACCESSED = [
    // (rdi uc, esi type, rdx address, ecx size, r8 value, r9 block)
    [0x49, 0x8b, 0x01], //                          mov  rax, [r9]
    [0x49, 0x3b, 0x41, 0x08], //                    cmp  rax, [r9 + 8]
    [0x73, 0x10], //                                jae  full
    [0x48, 0x89, 0x10], //                          mov  [rax], rdx
    [0x89, 0x48, 0x08], //                          mov  [rax + 8], ecx
    [0x89, 0x70, 0x0c], //                          mov  [rax + 12], esi
    [0x48, 0x83, 0xc0, RECORD_BYTES], //            add  rax, 16
    [0x49, 0x89, 0x01], //                          mov  [r9], rax
    [0xc3], //                                full: ret
].flat();
/** One vCPU's records. */
export class AccessRecorder {
    #block;
    #bytes;
    #start;
    /** Installs the hooks on an instance on which nothing has run yet. */
    constructor(library, uc) {
        this.#bytes = new Uint8Array(RECORD_BYTES * RECORDS);
        this.#start = BigInt(koffi.address(this.#bytes.buffer));
        this.#block = BigUint64Array.of(this.#start, this.#start + BigInt(this.#bytes.length));
        this.install(library, uc);
    }
    /** Installs the hooks on a further instance of the same vCPU. */
    install(library, uc) {
        const code = nativeCode();
        const handle = new BigUint64Array(1);
        const block = Number(koffi.address(this.#block.buffer));
        for (const [type, callback] of [
            [HookType.CODE, code.executed],
            [HookType.MEM_READ | HookType.MEM_WRITE, code.accessed],
        ]) {
            const out = Number(koffi.address(handle.buffer));
            const error = library.uc_hook_add(uc, out, type, callback, block, 1, 0, 0);
            if (error !== 0)
                throw new Bug(`uc_hook_add(${type}): error ${error}`);
        }
    }
    /** What there is since the last time. @throws InputError when there was more than the buffer holds */
    take() {
        const used = Number(this.#block[0] - this.#start);
        this.#block[0] = this.#start;
        if (used === this.#bytes.length) {
            throw new InputError('record', undefined, `more than ${RECORDS} events; take them more often`);
        }
        const view = new DataView(this.#bytes.buffer, 0, used);
        return Array.from({ length: used / RECORD_BYTES }, (_, i) => {
            const at = RECORD_BYTES * i;
            const kind = KINDS[view.getUint32(at + 12, true)];
            if (kind === undefined)
                throw new Bug('a record of no kind');
            return {
                kind,
                address: kaddr(view.getBigUint64(at, true)),
                sizeBytes: view.getUint32(at + 8, true),
            };
        });
    }
}
let native;
/** The callbacks in one executable page, made once per process. */
function nativeCode() {
    if (native !== undefined)
        return native;
    const page = nativePages(4096);
    if (page === undefined) {
        throw new InputError('record', undefined, 'recording accesses needs an x86-64 Linux host');
    }
    page.bytes.set(EXECUTED, 0);
    page.bytes.set(ACCESSED, 64);
    native = { executed: page.pointer, accessed: page.pointer + 64 };
    return native;
}
//# sourceMappingURL=recorder.js.map