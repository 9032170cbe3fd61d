import type { Engine } from '../engine.ts';
export interface NativeOptions {
    readonly cpus: number;
    /** Milliseconds after which a free run, or one that makes no progress, is stopped. */
    readonly timeLimitMs: number;
}
/** @throws InputError on hosts that cannot do it, saying why */
export declare function createNativeEngine(options: NativeOptions): Engine;
