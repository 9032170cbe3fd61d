import type { Machine } from '../emu/index.ts';
import { type Kaddr } from '../lib/index.ts';
import type { Kallsyms } from './kallsyms.ts';
export declare class FtraceCaller {
    #private;
    readonly address: Kaddr;
    /** @param name of the traced function */
    constructor(machine: Machine, kallsyms: Kallsyms, name: string, newFunc: Kaddr);
    /** Where the trampoline is that runs first. */
    get direct(): Kaddr | undefined;
    set direct(target: Kaddr | undefined);
    free(): void;
}
