import type { AccessEvent } from '../api.ts';
import type { Pointer, UnicornLibrary } from './library.ts';
/** One vCPU's records. */
export declare class AccessRecorder {
    #private;
    /** Installs the hooks on an instance on which nothing has run yet. */
    constructor(library: UnicornLibrary, uc: Pointer);
    /** Installs the hooks on a further instance of the same vCPU. */
    install(library: UnicornLibrary, uc: Pointer): void;
    /** What there is since the last time. @throws InputError when there was more than the buffer holds */
    take(): AccessEvent[];
}
