/*
 * Exact counts of one call, from what the emulator recorded of it. Nothing is estimated: the same call
 * gives the same counts on every run and on every machine.
 */

import type { AccessEvent } from '../emu/index.ts';
import { Bug } from '../lib/index.ts';

/** What some instructions took. */
export interface Counts {
  readonly instructions: number;
  /** Bytes of the instructions executed; those executed twice count twice. */
  readonly bytes: number;
  /** Accesses that read memory, of whatever width; `pop`, `ret` and each side of an `inc [m]` among them. */
  readonly loads: number;
  /** Accesses that write memory; `push` and `call` among them. */
  readonly stores: number;
  /** Instructions behind which another one than the next was executed: jumps taken, calls, returns. */
  readonly branches: number;
  readonly calls: number;
  /** Distinct 64-byte lines that instructions were fetched from. */
  readonly codeLines: number;
  /** Distinct 64-byte lines that were read or written. */
  readonly dataLines: number;
}

export type CountName = keyof Counts;

export const COUNTS: readonly CountName[] = [
  'instructions',
  'bytes',
  'loads',
  'stores',
  'branches',
  'calls',
  'codeLines',
  'dataLines',
];

const LINE_BITS = 6n;

/** Adds up; lines are remembered, so that those of two parts can be told apart from those of the whole. */
export class Tally implements Counts {
  instructions = 0;
  bytes = 0;
  loads = 0;
  stores = 0;
  branches = 0;
  calls = 0;
  readonly #code = new Set<bigint>();
  readonly #data = new Set<bigint>();

  get codeLines(): number {
    return this.#code.size;
  }

  get dataLines(): number {
    return this.#data.size;
  }

  add({ fetch, accesses, taken, isCall }: ExecutedInsn): void {
    this.instructions++;
    this.bytes += fetch.sizeBytes;
    if (taken) this.branches++;
    if (isCall) this.calls++;
    touch(this.#code, fetch);
    for (const access of accesses) {
      if (access.kind === 'read') this.loads++;
      else this.stores++;
      touch(this.#data, access);
    }
  }

  /** As plain data. */
  counts(): Counts {
    return Object.fromEntries(COUNTS.map((name) => [name, this[name]])) as Record<CountName, number>;
  }
}

function touch(lines: Set<bigint>, { address, sizeBytes }: AccessEvent): void {
  const last = (address + BigInt(sizeBytes - 1)) >> LINE_BITS;
  for (let line = address >> LINE_BITS; line <= last; line++) lines.add(line);
}

/** One executed instruction and what it did. */
export interface ExecutedInsn {
  readonly fetch: AccessEvent;
  readonly accesses: readonly AccessEvent[];
  /** Whether another instruction than the next one followed. */
  readonly taken: boolean;
  readonly isCall: boolean;
}

/**
 * The executed instructions of a recorded call. The last one, the `hlt` that the call returned to, only
 * tells where the return went.
 */
export function executed(events: readonly AccessEvent[]): ExecutedInsn[] {
  const insns: ExecutedInsn[] = [];
  let at = 0;
  while (at < events.length) {
    const fetch = events[at++] as AccessEvent;
    if (fetch.kind !== 'execute') throw new Bug('an access before any instruction');
    const accesses: AccessEvent[] = [];
    while (events[at] !== undefined && events[at]?.kind !== 'execute') {
      accesses.push(events[at++] as AccessEvent);
    }
    const next = events[at];
    if (next === undefined) break;
    const taken = next.address !== fetch.address + BigInt(fetch.sizeBytes);
    // Whoever goes elsewhere and leaves something behind has left a return address.
    const isCall = taken && accesses.some(({ kind }) => kind === 'write');
    insns.push({ fetch, accesses, taken, isCall });
  }
  return insns;
}
