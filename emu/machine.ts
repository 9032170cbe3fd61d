import type { Machine, MachineOptions } from './api.ts';

/**
 * Makes a machine.
 *
 * @throws InputError for options out of range, or when the engine's library is not there (the message
 *   says how to get it).
 */
export declare function createMachine(options?: MachineOptions): Promise<Machine>;
