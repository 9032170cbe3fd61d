import type { Int64, Pointer, UnicornLibrary } from './library.ts';
/** What the guarded start returns when libunicorn aborted; no uc_err. */
export declare const ABORTED = 32767;
export type EmuStart = (uc: Pointer, begin: Int64, until: Int64, timeout: number, count: number) => number;
/** uc_emu_start behind the guard, set up once per process; the bare one where native code cannot run. */
export declare function guardedEmuStart(library: UnicornLibrary): EmuStart;
