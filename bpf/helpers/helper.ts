/*
 * What a helper is. To add one: a row in the file of its group, what it takes in bpf/verify/helpers.ts;
 * docs/bpf-programs.md is held against the rows.
 *
 *   table.ts       all of them             output.ts      ring buffers, perf events
 *   maps.ts        maps                    text.ts        formats, numbers
 *   memory.ts      memory of others        format.ts      what a format makes of values
 *   task.ts        task, CPU, clocks       stack.ts       return addresses
 *   trampoline.ts  what the image keeps    guest.ts       guest memory as helpers reach it
 */

import type { Kernel, ManagedRevision } from '../../tramp/index.ts';
import type { BpfMap } from '../maps/map.ts';
import type { GuestMemoryView } from './guest.ts';

/** What helpers have besides their arguments. */
export interface HelperWorld {
  readonly kernel: Kernel;
  readonly guest: GuestMemoryView;
  /** By the address of their struct bpf_map. */
  readonly maps: ReadonlyMap<bigint, BpfMap>;
  /** Takes a line of the trace log. */
  readonly print: (text: string) => void;
  /** The next 32 bits of chance. */
  readonly random: () => number;
}

/** One call of a helper. */
export interface HelperCall {
  readonly world: HelperWorld;
  readonly cpu: number;
  /** r1 to r5. */
  readonly args: readonly [bigint, bigint, bigint, bigint, bigint];
  /** The frame of the program that calls, and where it goes on. */
  readonly frame: { readonly rbp: bigint; readonly returnTo: bigint };
}

/** A helper that wants a function of the program called before it goes on. */
export interface Callback {
  readonly fn: bigint;
  readonly args: readonly bigint[];
}

/** r0; or a course of calls back into the program, each of which gives its r0, with r0 at the end. */
export type HelperAnswer = bigint | number | Generator<Callback, bigint | number, bigint>;

export interface Helper {
  /** Kernel: enum bpf_func_id */
  readonly id: number;
  /** As C spells it. */
  readonly name: string;
  /** Programs of trampolines may call it from here on. */
  readonly since: ManagedRevision;
  /** What it gives here, and what is not as in the kernel; for docs/bpf-programs.md. */
  readonly doc: string;
  /** @throws MemoryFault when it is given an address where nothing is, as the kernel would fault */
  readonly run: (call: HelperCall) => HelperAnswer;
  /** x86-64 code that does the same without leaving the guest. */
  readonly code?: ((home: CodeHome) => readonly number[]) | undefined;
}

/** Where per-CPU words lie, for helpers that are code. */
export interface CodeHome {
  readonly currentTask: number;
  readonly cpuNumber: number;
}

/** A map by the address that a program gave. */
export function mapAt({ maps }: HelperWorld, address: bigint): BpfMap | undefined {
  return maps.get(address);
}

/** The low 32 bits of an argument, unsigned: what a u32 parameter holds. */
export const low32 = (word: bigint): number => Number(BigInt.asUintN(32, word));

/** A little-endian u32, as code holds it. */
export const le32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
