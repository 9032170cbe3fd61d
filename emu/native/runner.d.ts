import { type MachineCode } from './machine-code.ts';
/** The runner, to be put at RUNNER_TEXT. Its entry is its first byte. */
export declare function makeRunner(): MachineCode;
