/*
 * QEMU's translator inside libunicorn 2.0 calls abort() on some encodings that hardware answers with #UD
 * (`lock cmp`, a far jump through a register, `lock bts` on a register). A wild jump into the middle of
 * an instruction can meet one, and a guest must not be able to end this process. So uc_emu_start is
 * entered through a few bytes of native code that remember the stack, and a SIGABRT handler that,
 * while such a run is under way on this thread, goes back there with an error of our own. Any other
 * abort takes its course: the handler returns, and abort() then ends the process as ever.
 *
 * Known and not guarded against: `mov dr7` with a breakpoint enabled, which crashes libunicorn 2.0.1
 * with SIGSEGV (400,000 random instruction sequences met nothing else).
 *
 * glibc's abort() holds no lock while it raises the signal, so leaving it this way is sound. The engine
 * instance was in the middle of a translation: the caller must not run it again.
 */
import koffi from 'koffi';
import { nativePages } from './native-code.js';
/** What the guarded start returns when libunicorn aborted; no uc_err. */
export const ABORTED = 0x7fff;
/** Offsets of the data: in a page apart, because stores beside running code make the CPU start over. */
const ARMED_RSP = 0x1000;
const ARMED_THREAD = 0x1008;
const EMU_START = 0x1010;
/** Where the handler begins in CODE. */
const HANDLER = 0x45;
/** `[rip + disp32]` of an instruction that ends at `end`. */
function rel(target, end) {
    const distance = target - end;
    return [0, 8, 16, 24].map((shift) => (distance >> shift) & 0xff);
}
const CODE = [
    // int guarded_start(uc, begin, until, timeout, count), System V
    ...[0x55, 0x53], //                                      00 push  rbp; push rbx
    ...[0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57], //  02 push  r12 .. r15
    ...[0x48, 0x83, 0xec, 0x08], //                          0a sub   rsp, 8
    ...[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0], //        0e mov   rax, fs:[0]: this thread
    ...[0x48, 0x89, 0x05, ...rel(ARMED_THREAD, 0x1e)], //    17 mov   [ARMED_THREAD], rax
    ...[0x48, 0x89, 0x25, ...rel(ARMED_RSP, 0x25)], //       1e mov   [ARMED_RSP], rsp
    ...[0xff, 0x15, ...rel(EMU_START, 0x2b)], //             25 call  [EMU_START]
    // leave:
    ...[0x48, 0xc7, 0x05, ...rel(ARMED_RSP, 0x36), 0, 0, 0, 0], // 2b mov qword [ARMED_RSP], 0
    ...[0x48, 0x83, 0xc4, 0x08], //                          36 add   rsp, 8
    ...[0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c], //  3a pop   r15 .. r12
    ...[0x5b, 0x5d, 0xc3], //                                42 pop   rbx; pop rbp; ret
    // void handler(int signal)
    ...[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0], //        45 mov   rax, fs:[0]
    ...[0x48, 0x3b, 0x05, ...rel(ARMED_THREAD, 0x55)], //    4e cmp   rax, [ARMED_THREAD]
    ...[0x75, 0x16], //                                      55 jne   not_ours
    ...[0x48, 0x8b, 0x05, ...rel(ARMED_RSP, 0x5e)], //       57 mov   rax, [ARMED_RSP]
    ...[0x48, 0x85, 0xc0], //                                5e test  rax, rax
    ...[0x74, 0x0a], //                                      61 je    not_ours
    ...[0x48, 0x89, 0xc4], //                                63 mov   rsp, rax
    ...[0xb8, ABORTED & 0xff, ABORTED >> 8, 0, 0], //        66 mov   eax, ABORTED
    ...[0xeb, (0x2b - 0x6d) & 0xff], //                               6b jmp   leave
    ...[0xc3], //                                            6d not_ours: ret
];
const SIGABRT = 6;
/** Deliver it again while in the handler: the handler does not return. */
const SA_NODEFER = 0x4000_0000;
/** struct sigaction of glibc on x86-64: handler, mask (128 bytes), flags, restorer. */
const SIGACTION_BYTES = 152;
const SIGACTION_FLAGS = 136;
let guarded;
/** uc_emu_start behind the guard, set up once per process; the bare one where native code cannot run. */
export function guardedEmuStart(library) {
    guarded ??= setUp(library);
    return guarded;
}
function setUp(library) {
    const pages = nativePages(0x2000);
    if (pages === undefined)
        return library.uc_emu_start;
    pages.bytes.set(CODE);
    const data = new DataView(pages.bytes.buffer);
    data.setBigUint64(EMU_START, BigInt(library.emuStartPointer), true);
    const action = new Uint8Array(SIGACTION_BYTES);
    const fields = new DataView(action.buffer);
    fields.setBigUint64(0, BigInt(pages.pointer + HANDLER), true);
    fields.setUint32(SIGACTION_FLAGS, SA_NODEFER, true);
    const sigaction = koffi
        .load('libc.so.6')
        .func('int sigaction(int signal, const uint8_t *action, uintptr_t old)');
    sigaction(SIGABRT, action, 0);
    return koffi.decode(pages.pointer, koffi.proto('int (uintptr_t uc, int64_t begin, int64_t until, uint64_t timeout, size_t count)'));
}
//# sourceMappingURL=abort-guard.js.map