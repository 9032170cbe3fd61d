import type { Pointer, UnicornLibrary } from './library.ts';
/** Native addresses of the callbacks. Each is given its vCPU's control block as user data. */
export interface Hooks {
    readonly code: Pointer;
    readonly memory: Pointer;
    readonly interrupt: Pointer;
    readonly syscall: Pointer;
    readonly portIn: Pointer;
    readonly portOut: Pointer;
}
/** Installs the hooks on one engine instance. */
export declare function installHooks(library: UnicornLibrary, uc: Pointer, hooks: Hooks, block: Pointer): void;
/** One machine's hooks in native code, or in JavaScript where that is not possible (or asked for). */
export declare function makeHooks(library: UnicornLibrary, kind: 'native' | 'javascript'): Hooks;
