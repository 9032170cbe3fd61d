import { type Engine } from '../engine.ts';
import { type UnicornJsFactory } from './package.ts';
export interface UnicornJsOptions {
    readonly cpus: number;
    /** Default: found as loadUnicornJs says. */
    readonly factory?: UnicornJsFactory;
}
/** @throws InputError when unicorn.js is not there */
export declare function createUnicornJsEngine(options: UnicornJsOptions): Promise<Engine>;
