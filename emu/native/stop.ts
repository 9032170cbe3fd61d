/*
 * From the signal that stopped a guest to why it stopped, in the words of every engine.
 *
 * Instructions that a process may not execute show as #GP. Those that end a run on every engine (`hlt`,
 * port I/O, `int`) are told apart by what stands at rip; the others stay #GP, where Unicorn, which runs
 * guests in ring 0, executes them.
 */

import { Bug, type Kaddr, kaddr } from '../../lib/index.ts';
import type { Perms } from '../api.ts';
import type { EngineStop, MemoryStop } from '../engine.ts';
import { isCanonical } from '../layout.ts';
import { accessAt, type Decoded, decode, nonCanonicalAccess, type RegisterValues } from './decode.ts';
import { Signal } from './linux.ts';

/** A guest that was stopped by a signal. */
export interface Stopped {
  readonly signal: number;
  readonly error: number;
  readonly vector: number;
  /** Of the last page fault. */
  readonly address: bigint;
  readonly rip: bigint;
  readonly registers: RegisterValues;
}

/** What is mapped where the guest ran. */
export interface GuestView {
  permsAt(address: bigint): Perms | undefined;
  /** Up to `length` bytes from an address on: as many as are mapped. */
  bytesAt(address: bigint, length: number): Uint8Array;
}

/** Why a guest stopped, and where. */
export interface StopReason {
  readonly stop: EngineStop;
  readonly stopRip: Kaddr;
  readonly vector?: number;
  readonly memory?: MemoryStop;
  /** Whether it ended in a branch to where no instruction can be: the branch itself is complete. */
  readonly branched?: boolean;
  /** After `crashed`: how. */
  readonly crash?: string;
  /** Where rip belongs, when it is not there. */
  readonly rip?: Kaddr;
}

const Vector = { DB: 1, BP: 3, OF: 4, SS: 12, GP: 13, PF: 14 } as const;
const LONGEST_INSTRUCTION = 15;
const WRITE_ACCESS = 2;
const INSTRUCTION_FETCH = 0x10;

const INT3 = 0xcc;
const INT1 = 0xf1;

export function explainSignal(stopped: Stopped, guest: GuestView): StopReason {
  switch (stopped.signal) {
    case Signal.USR1:
      return { stop: 'time-limit', stopRip: kaddr(stopped.rip) };
    case Signal.ILL:
      return { stop: 'invalid-opcode', stopRip: kaddr(stopped.rip) };
    case Signal.SYS:
      return systemCall(stopped, guest);
    case Signal.TRAP:
      return trap(stopped, guest);
    case Signal.FPE:
      return { stop: 'exception', stopRip: kaddr(stopped.rip), vector: stopped.vector };
    case Signal.SEGV:
    case Signal.BUS:
      return accessFault(stopped, guest);
    default:
      throw new Bug(`the runner reports signal ${stopped.signal}`);
  }
}

/** `syscall`, `sysenter` or `int 0x80`: rip is behind it. */
function systemCall({ rip }: Stopped, guest: GuestView): StopReason {
  const stopRip = kaddr(rip - 2n);
  const [first, second] = guest.bytesAt(stopRip, 2);
  const at = { stopRip, rip: stopRip };
  if (first === 0xcd && second !== undefined) return { stop: 'exception', vector: second, ...at };
  return { stop: 'syscall', ...at };
}

/** int3 and int1, of which rip is behind; or the guest's own trap flag. */
function trap({ vector, rip }: Stopped, guest: GuestView): StopReason {
  const [before] = guest.bytesAt(rip - 1n, 1);
  const single = vector === Vector.BP ? INT3 : INT1;
  const behindInt = vector === Vector.BP ? rip - 2n : rip;
  return { stop: 'exception', vector, stopRip: kaddr(before === single ? rip - 1n : behindInt) };
}

function accessFault(stopped: Stopped, guest: GuestView): StopReason {
  const { vector, error, address, rip } = stopped;
  if (vector === Vector.PF && (error & INSTRUCTION_FETCH) !== 0) return fetchStop(address, guest);
  if (!isCanonical(rip)) return { ...fetchStop(rip, guest), branched: true };
  const decoded = decode(guest.bytesAt(rip, LONGEST_INSTRUCTION), rip, stopped.registers);
  if (vector === Vector.PF) return pageFault(stopped, guest, decoded);
  if (vector === Vector.OF) return { stop: 'exception', vector, stopRip: kaddr(rip - 2n) };
  if (vector !== Vector.GP && vector !== Vector.SS) {
    return { stop: 'exception', vector, stopRip: kaddr(rip) };
  }
  return protectionFault(stopped, guest, decoded);
}

function fetchStop(address: bigint, guest: GuestView): StopReason {
  const cause = guest.permsAt(address) === undefined ? 'unmapped' : 'protected';
  const at = kaddr(address);
  return {
    stop: 'memory',
    stopRip: at,
    rip: at,
    memory: { access: 'fetch', cause, address: at, sizeBytes: 1 },
  };
}

function pageFault(stopped: Stopped, guest: GuestView, decoded: Decoded | undefined): StopReason {
  const { address, rip } = stopped;
  const writes = (stopped.error & WRITE_ACCESS) !== 0;
  const access = decoded && accessAt(decoded, address, writes);
  return {
    stop: 'memory',
    stopRip: kaddr(rip),
    memory: {
      access: writes ? 'write' : 'read',
      cause: guest.permsAt(address) === undefined ? 'unmapped' : 'protected',
      address: kaddr(access?.address ?? address),
      sizeBytes: access?.sizeBytes ?? 1,
    },
  };
}

function protectionFault(stopped: Stopped, guest: GuestView, decoded: Decoded | undefined): StopReason {
  const stopRip = kaddr(stopped.rip);
  if (decoded !== undefined) {
    switch (decoded.kind) {
      case 'hlt':
        return { stop: 'halted', stopRip, rip: kaddr(stopped.rip + BigInt(decoded.sizeBytes)) };
      case 'port-io':
        return { stop: 'port-io', stopRip };
      case 'int':
        return { stop: 'exception', vector: decoded.vector, stopRip };
      case 'other': {
        const access = nonCanonicalAccess(decoded);
        if (access !== undefined) {
          const { address, sizeBytes, reads } = access;
          const memory = { access: reads ? 'read' : 'write', cause: 'unmapped', sizeBytes } as const;
          return { stop: 'memory', stopRip, memory: { ...memory, address: kaddr(address) } };
        }
        // CPUs differ in whether they refuse to go where there is no address, or are there already.
        const target = decoded.target && targetValue(decoded.target, guest);
        if (target !== undefined && !isCanonical(target)) {
          return { ...fetchStop(target, guest), branched: true };
        }
      }
    }
  }
  return { stop: 'exception', vector: stopped.vector, stopRip };
}

function targetValue(target: NonNullable<Decoded['target']>, guest: GuestView): bigint | undefined {
  if ('value' in target) return target.value;
  const bytes = guest.bytesAt(target.at, 8);
  if (bytes.length < 8) return undefined;
  return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
}
