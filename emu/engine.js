/*
 * What a CPU emulator must offer so that a machine can stand on it. The machine knows tasks, stacks,
 * allocators and names; an engine knows mapped blocks of memory, registers and how a run ended.
 * Adapters: unicorn/ (the native library), unicorn-js/ (the same as WebAssembly) and native/ (the host's
 * own CPU).
 */
import { kaddr } from '../lib/index.js';
export const PAGE_SIZE = 4096;
/** What a run that got to address 0 met: there is never any text. */
export const NULL_FETCH = {
    access: 'fetch',
    cause: 'unmapped',
    address: kaddr(0n),
    sizeBytes: 1,
};
//# sourceMappingURL=engine.js.map