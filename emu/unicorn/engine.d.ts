import { type Engine } from '../engine.ts';
export interface UnicornOptions {
    readonly cpus: number;
    /** `javascript` is for hosts without native hooks, and for testing that they agree. */
    readonly hooks?: 'native' | 'javascript';
    /** Keep what is executed, read and written; default false. */
    readonly record?: boolean;
}
/** @throws InputError when libunicorn is not there. */
export declare function createUnicornEngine(options: UnicornOptions): Engine;
