import type { Machine } from '../emu/index.ts';
import { type HelperAddresses } from '../jit/index.ts';
import type { Kallsyms } from './kallsyms.ts';
/**
 * Puts the return thunk into kernel text. It returns; what it is there for, untrained branch predictors, does
 * not exist here. Kernel: __x86_return_thunk, arch/x86/lib/retpoline.S
 */
export declare function placeReturnThunk(machine: Machine, kallsyms: Kallsyms): HelperAddresses;
