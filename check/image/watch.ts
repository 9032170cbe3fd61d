/*
 * What an image may not do whatever comes of it, looked for at each instruction that it executes:
 *
 *   before   is it an instruction, uses it other state than an image's, returns it as it must,
 *            where will it write (by the decoder's word: anywhere)
 *   after    what has changed on the stack (by comparison), where rsp went; then an interrupt comes,
 *            and what is below rsp is lost
 */

import type { RegisterName, Registers } from '../../emu/index.ts';
import { addrAdd, Bug, hex64, type Kaddr } from '../../lib/index.ts';
import type { ConfigCase } from './case.ts';
import { addressOf, decoderOf, type Effects, type MemoryUse } from './decode.ts';
import { CALLER_BYTES, FILL } from './log.ts';
import type { Ready, Stage } from './stage.ts';

/** How far below rsp the stack is compared, and spoilt by interrupts, bytes. */
const BELOW_BYTES = 256;
/** What is written so far below rsp or less is meant for the stack, bytes. */
const STACK_BYTES = 0x1_0000;
/** A return address that is skipped: above the frame, and still the image's business. */
const RETURN_BYTES = 8;
const INT3 = 0xcc;

/** Something that an image may not do. */
export interface Violation {
  readonly rule:
    | 'writes-below-rsp'
    | 'writes-outside-frame'
    | 'foreign-state'
    | 'return-hardening'
    | 'no-fault';
  /** Bytes from the image's start to the instruction. */
  readonly offset: number;
  /** What it did, in words. */
  readonly what: string;
}

export class Watch {
  readonly violations: Violation[] = [];
  /** Where `stack` begins: as low as any image of any frame can reach, and what is looked at below that. */
  readonly stackStart: Kaddr;
  /** The stack near the driver, as it is. */
  readonly stack: Uint8Array;
  /** As it was before the latest instruction. */
  readonly before: Uint8Array;
  readonly #interrupted: Uint8Array;
  readonly #image: Uint8Array;
  readonly #config: ConfigCase;
  readonly #decoded: (offset: number) => Effects;
  readonly #looked = new Set<number>();
  /** Where in the stack each image's own part ends, the innermost call last. */
  readonly #entries: number[] = [];
  #rsp = 0;
  #stores: readonly bigint[] = [];

  /** @param length bytes of the image */
  constructor({ callers, machine }: Stage, { one, seat }: Ready, length: number) {
    const [lowest] = callers.stack;
    const driverRsp = callers.stack[callers.top];
    if (lowest === undefined || driverRsp === undefined) throw new Bug('a stack that ends below the driver');
    this.stackStart = addrAdd(lowest, -BELOW_BYTES);
    const size = Number(driverRsp - this.stackStart) + CALLER_BYTES;
    this.stack = machine.memory.bytes(this.stackStart, size);
    this.before = new Uint8Array(size);
    this.#interrupted = new Uint8Array(size);
    new BigUint64Array(this.#interrupted.buffer, 0, size >> 3).fill(FILL);
    this.#image = machine.memory.bytes(seat.place.image, length);
    this.#decoded = decoderOf(this.#image);
    this.#config = one.config;
  }

  /** Whether the image has executed anything yet. */
  get entered(): boolean {
    return this.#looked.size > 0;
  }

  /** The image is about to execute the instruction at an offset. */
  begin(offset: number, regs: Registers): void {
    this.#rsp = this.#inStack(regs.get('rsp'));
    if (offset === 0) this.#entries.push(this.#rsp);
    const effects = this.#decoded(offset);
    if (!this.#looked.has(offset)) this.#look(offset, effects);
    this.#looked.add(offset);
    const { perCpu, stores } = effects;
    this.#stores = perCpu ? [] : stores.map((use) => addressOf(use, registersOf(use, regs)));
    this.before.set(this.stack);
  }

  /** It has. @param leaves whether control is outside of the image now */
  end(offset: number, regs: Registers, leaves: boolean): void {
    const rsp = this.#inStack(regs.get('rsp'));
    const entry = this.#entries.at(-1) ?? this.stack.length;
    this.#compare(offset, Math.min(this.#rsp, rsp), entry);
    this.#interrupt(rsp);
    // Wherever rsp is, an image is not over before control leaves it; a call leaves its return address behind.
    if (leaves && rsp >= entry && rsp >= this.#rsp) this.#entries.pop();
    // Whatever comes next, an interrupt or a call, writes there.
    if (!leaves && (rsp < 0 || rsp > entry + RETURN_BYTES))
      this.#violation('writes-outside-frame', offset, `moves rsp to ${fromRsp(rsp - this.#rsp)}`);
  }

  #violation(rule: Violation['rule'], offset: number, what: string): void {
    this.violations.push({ rule, offset, what });
  }

  #inStack(address: bigint): number {
    return Number(address - this.stackStart);
  }

  /** An emulator executes some things that no CPU does, and not all state is in the log. */
  #look(offset: number, { valid, foreign, perCpu, flow, sizeBytes }: Effects): void {
    const { callDepth, rethunk, sls } = this.#config;
    if (!valid) this.#violation('no-fault', offset, 'is no instruction');
    else if (foreign || (perCpu && !callDepth))
      this.#violation('foreign-state', offset, 'uses other registers');
    if (flow !== 'return') return;
    if (rethunk) this.#violation('return-hardening', offset, 'is no jump to the thunk');
    else if (sls && this.#image[offset + sizeBytes] !== INT3)
      this.#violation('return-hardening', offset, 'has no int3 behind it');
  }

  /**
   * Looks for what was written outside of the frame.
   * @param rsp the lower one of before and after
   * @param entry where the frame ends
   */
  #compare(offset: number, rsp: number, entry: number): void {
    const { stack, before } = this;
    const low = Math.max(0, Math.min(rsp, stack.length));
    const changed = (rule: Violation['rule'], from: number, to: number): void => {
      const at = firstChange(before, stack, from, to);
      if (at >= 0) this.#violation(rule, offset, `writes at ${fromRsp(at - this.#rsp)}`);
    };
    changed('writes-below-rsp', Math.max(0, low - BELOW_BYTES), low);
    changed('writes-outside-frame', entry, stack.length);
    for (const address of this.#stores) {
      const at = this.#inStack(address);
      if (at >= rsp && at < entry) continue;
      const below = at < rsp && at >= rsp - STACK_BYTES;
      this.#violation(
        below ? 'writes-below-rsp' : 'writes-outside-frame',
        offset,
        `writes at ${hex64(address)}`,
      );
    }
  }

  /** Below rsp it leaves what was there at first. */
  #interrupt(rsp: number): void {
    if (rsp <= 0 || rsp > this.stack.length) return;
    const from = Math.max(0, rsp - BELOW_BYTES);
    this.stack.set(this.#interrupted.subarray(from, rsp), from);
  }
}

/** The registers that an address is made of. */
function registersOf(
  { base, index }: MemoryUse,
  regs: Registers,
): Readonly<Partial<Record<RegisterName, bigint>>> {
  const named = [base, index].filter((name) => name !== undefined);
  return Object.fromEntries(named.map((name) => [name, regs.get(name)]));
}

function fromRsp(distance: number): string {
  return `rsp${distance < 0 ? '-' : '+'}0x${Math.abs(distance).toString(16)}`;
}

/** The first byte that differs between two offsets; negative when none does. */
function firstChange(one: Uint8Array, other: Uint8Array, from: number, to: number): number {
  if (from >= to || Buffer.compare(one.subarray(from, to), other.subarray(from, to)) === 0) return -1;
  let at = from;
  while (one[at] === other[at]) at++;
  return at;
}
