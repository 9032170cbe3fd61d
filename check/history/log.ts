/*
 * What functions and programs write down while they run, in guest memory: one entry each time they begin
 * and end. All CPUs write into one log, so that its order is the order in which things happened.
 *
 *   entry   +0 what  +4 task  +8 rcu depth  +12 trace depth  +16 migration  +20 cpu  +24 address  +28 cookie
 */

import type { Machine } from '../../emu/index.ts';
import {
  type Assembler,
  dword,
  eax,
  ecx,
  edx,
  gsAt,
  Mem,
  ptr,
  qword,
  type Reg,
  rax,
  rcx,
  rdx,
  TaskStruct,
} from '../../jit/index.ts';
import type { Kaddr } from '../../lib/index.ts';

const ENTRY_WORDS = 8;
const ENTRY_BYTES = 4 * ENTRY_WORDS;
/** No right history is longer; what writes more runs into the page behind. */
const ENTRIES = 4096;

/** What an entry says. */
export const Note = {
  /** A function's own code begins, behind its site; and ends, before its return. */
  body: 1,
  end: 2,
  /** A program begins; and ends. */
  run: 3,
  done: 4,
  /** The function that a live patch has in another one's place begins; and ends. */
  patch: 5,
  patchEnd: 6,
} as const;
export type Note = (typeof Note)[keyof typeof Note];

/** An entry, read. */
export interface LogEntry {
  readonly note: Note;
  /** Number of the function or of the loaded program. */
  readonly subject: number;
  /** Lower half of the task's address. */
  readonly task: number;
  readonly cpu: number;
  /** How deep the task is in each kind of section; for `run` only. */
  readonly rcu: number;
  readonly trace: number;
  readonly migration: number;
  /** Lower half of what bpf_get_func_ip said; for `run` of programs that ask. */
  readonly ip: number;
  /** Lower half of what bpf_get_attach_cookie said; for `run` and `done` of programs that ask. */
  readonly cookie: number;
}

const NOTE_SHIFT = 28;

/** Where in an entry programs write what they were told, bytes. */
export const ENTRY_IP = 24;
export const ENTRY_COOKIE = 28;

export class Log {
  readonly #start: Kaddr;
  /** Where the next entry goes, in data that a 32-bit displacement reaches. */
  readonly #cursor: Kaddr;
  readonly #machine: Machine;
  readonly #next: BigUint64Array;
  readonly #words: Uint32Array;

  /** Takes its memory from the machine; a snapshot taken later has it empty. */
  constructor(machine: Machine) {
    const { memory } = machine;
    this.#machine = machine;
    this.#start = memory.vmalloc(ENTRIES * ENTRY_BYTES, 'log');
    this.#cursor = memory.allocKernelData(8, 'log cursor');
    const cursor = memory.bytes(this.#cursor, 8);
    const entries = memory.bytes(this.#start, ENTRIES * ENTRY_BYTES);
    this.#next = new BigUint64Array(cursor.buffer, cursor.byteOffset, 1);
    this.#words = new Uint32Array(entries.buffer, entries.byteOffset, ENTRIES * ENTRY_WORDS);
    this.#next[0] = this.#start;
  }

  /** How many entries there are: the time, as far as anybody can tell. */
  get length(): number {
    return Number((this.#next[0] ?? 0n) - this.#start) / ENTRY_BYTES;
  }

  entry(index: number): LogEntry {
    const word = (offset: number): number => this.#words[index * ENTRY_WORDS + offset / 4] ?? 0;
    const what = word(0);
    return {
      note: (what >>> NOTE_SHIFT) as Note,
      subject: what & ((1 << NOTE_SHIFT) - 1),
      task: word(4),
      rcu: word(8),
      trace: word(12),
      migration: word(16),
      cpu: word(20),
      ip: word(ENTRY_IP),
      cookie: word(ENTRY_COOKIE),
    };
  }

  /** Emits the writing of an entry. Uses rax, rcx and rdx. */
  emit(asm: Assembler, note: Note, subject: number, more?: (entry: Reg) => void): void {
    const { currentTask, cpuNumber } = this.#machine.percpu.vars;
    asm.movImm32(eax, ENTRY_BYTES);
    asm.lockXadd(qword(new Mem({ disp: Number(BigInt.asIntN(32, this.#cursor)) })), rax);
    asm.movImm(dword(ptr(rax)), (note << NOTE_SHIFT) | subject);
    asm.mov(rcx, gsAt(currentTask));
    asm.mov(ptr(rax, 4), ecx);
    asm.mov(edx, gsAt(cpuNumber));
    asm.mov(ptr(rax, 20), edx);
    more?.(rax);
  }

  /** The same for a program that begins: with the sections that its task is in. @param more may add to it */
  emitRun(asm: Assembler, subject: number, more?: (entry: Reg) => void): void {
    this.emit(asm, Note.run, subject, (entry) => {
      asm.mov(rdx, ptr(rcx, TaskStruct.rcuReadLockNesting));
      asm.mov(ptr(entry, 8), rdx, 'and the trace depth behind it');
      asm.mov(edx, ptr(rcx, TaskStruct.migrationDisabled));
      asm.mov(ptr(entry, 16), edx);
      more?.(entry);
    });
  }
}

/** What an entry has of an address or a cookie. */
export function lowerHalf(address: bigint): number {
  return Number(BigInt.asUintN(32, address));
}
