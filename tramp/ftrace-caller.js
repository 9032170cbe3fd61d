/*
 * What a site calls that a live patch and perhaps a trampoline share. It looks to whoever comes next as if the
 * site had called that, from another function:
 *
 *   site:  call caller          stack behind it        for the trampoline, or the other function
 *                                 return into f    ->    the other function, which the patch wants
 *                                 return to f's caller   the same
 *
 * Kernel: ftrace_regs_caller, arch/x86/kernel/ftrace_64.S; klp_ftrace_handler, kernel/livepatch/patch.c.
 * simplified: it keeps no registers for handlers, because the one handler is the code itself.
 */
import { Assembler, linkCode, piece, ptr, rax, ripTo, rsp } from '../jit/index.js';
import { addrAdd, kaddr } from '../lib/index.js';
/** Data of a caller: where the direct call goes, or 0. */
const DIRECT = 'direct';
/** Data of a caller: the function that runs in place of the traced one. */
const NEW_FUNC = 'new_func';
const emit = piece('ftrace_regs_caller', ({ asm }) => {
    const none = asm.label('no_direct_call');
    asm.push(rax, 'room for the direct call');
    asm.push(rax);
    asm.mov(rax, ripTo(NEW_FUNC));
    asm.mov(ptr(rsp, 16), rax, 'in place of the traced function');
    asm.mov(rax, ripTo(DIRECT));
    asm.test(rax, rax);
    asm.jccShort('e', none);
    asm.mov(ptr(rsp, 8), rax);
    asm.pop(rax);
    asm.ret('to the direct call');
    asm.bind(none);
    asm.pop(rax);
    asm.lea(rsp, ptr(rsp, 8));
    asm.ret('to the new function');
});
export class FtraceCaller {
    address;
    #machine;
    #kallsyms;
    #data;
    #ksym;
    #direct;
    /** @param name of the traced function */
    constructor(machine, kallsyms, name, newFunc) {
        const asm = new Assembler(kaddr(0));
        emit({ asm });
        const code = asm.finish();
        const symbol = `ftrace_regs_caller (${name})`;
        this.#machine = machine;
        this.#kallsyms = kallsyms;
        this.address = machine.memory.allocText(code.bytes.length, symbol);
        this.#data = machine.memory.allocData(16, symbol);
        const data = {
            [DIRECT]: this.#data,
            [NEW_FUNC]: addrAdd(this.#data, 8),
        };
        machine.memory.writeU64(addrAdd(this.#data, 8), newFunc);
        machine.patchText(this.address, linkCode(code, this.address, (label) => data[label]).bytes);
        this.#ksym = { name: symbol, start: this.address, sizeBytes: code.bytes.length, kind: 'kernel' };
        kallsyms.add(this.#ksym);
    }
    /** Where the trampoline is that runs first. */
    get direct() {
        return this.#direct;
    }
    set direct(target) {
        this.#direct = target;
        this.#machine.memory.writeU64(this.#data, target ?? 0n);
    }
    free() {
        this.#kallsyms.remove(this.#ksym);
        this.#machine.memory.freeText(this.address);
        this.#machine.memory.freeData(this.#data);
    }
}
//# sourceMappingURL=ftrace-caller.js.map