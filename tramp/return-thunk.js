import { Assembler, piece } from '../jit/index.js';
/** Where returns of emitted code go on a kernel that is built with return thunks. */
const RETURN_THUNK = 'x86_return_thunk';
const emit = piece('__x86_return_thunk', ({ asm }) => {
    asm.ret();
    asm.int3('no speculation past the return');
});
/**
 * Puts the return thunk into kernel text. It returns; what it is there for, untrained branch predictors, does
 * not exist here. Kernel: __x86_return_thunk, arch/x86/lib/retpoline.S
 */
export function placeReturnThunk(machine, kallsyms) {
    const emitted = (address) => {
        const asm = new Assembler(address);
        emit({ asm });
        return asm.bytes();
    };
    const sizeBytes = emitted(machine.layout.kernelText.start).length;
    const start = machine.memory.allocKernelText(sizeBytes, RETURN_THUNK);
    machine.patchText(start, emitted(start));
    kallsyms.add({ name: RETURN_THUNK, start, sizeBytes, kind: 'kernel' });
    return { [RETURN_THUNK]: start };
}
//# sourceMappingURL=return-thunk.js.map