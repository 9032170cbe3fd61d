import { InputError } from '../../lib/index.ts';
export type Pointer = number;
/** @throws InputError on anything but x86-64 Linux */
export declare function checkHost(): void;
/** What the host refuses, as the one line that a user gets. */
export declare function refused(what: string, errno: number): InputError;
/** Where a buffer lies. */
export declare function pointerTo(buffer: ArrayBuffer): Pointer;
/** A file in memory, empty. @throws InputError */
export declare function memfdCreate(name: string): number;
/** Maps a part of a file for reading and writing by the host. @throws InputError */
export declare function mapShared(fd: number, offset: number, sizeBytes: number): Pointer;
export declare function unmapShared(pointer: Pointer, sizeBytes: number): void;
/** Gives the memory behind a part of a file back; it reads as zeros then. */
export declare function punchHole(fd: number, offset: number, sizeBytes: number): void;
/**
 * Starts a program with an empty environment, one file as its file descriptor 3 and no other, in a process
 * group of its own: Ctrl-C is for the host alone.
 * @returns its process id, or the negative errno
 */
export declare function spawn(path: string, fd: number): number;
/** How a process ended, in words; undefined while it lives. A process is asked for its end once. */
export declare function endOf(pid: number, wait: 'no' | 'until it ends'): string | undefined;
export declare function kill(pid: number, signal: number): void;
/** Sends a signal to one thread of a process. */
export declare function killThread(pid: number, tid: number, signal: number): void;
/** A crash of the process leaves no core file. */
export declare function forbidCoreFile(pid: number): void;
/** Sleeps while the word is `value`, for at most `milliseconds`; may return early. */
export declare function futexWait(word: Pointer, value: number, milliseconds: number): void;
/** Wakes who sleeps on the word. */
export declare function futexWake(word: Pointer): void;
