/*
 * One case, instruction by instruction: what the image writes is looked at after each of its instructions, what is
 * below rsp is lost then, as to an interrupt, and, on request, everything is kept that blame.ts needs to say which
 * of them is at fault.
 */

import type { Fault, RegisterName, Registers } from '../../emu/index.ts';
import { addrAdd, Bug, hex64, type Kaddr, kaddr } from '../../lib/index.ts';
import { programsOf } from './case.ts';
import { addressOf, decoderOf, type MemoryUse } from './decode.ts';
import { CALLER_BYTES, FILL } from './log.ts';
import type { Ended, Ready, Stage } from './stage.ts';

/** How far below rsp the stack is compared, and spoilt by interrupts, bytes. */
const BELOW_BYTES = 256;
/** What is written so far below rsp or less is meant for the stack, bytes. */
const STACK_BYTES = 0x1_0000;
const INT3 = 0xcc;

/** A return address that is skipped: above the frame, and still the image's business. */
const RETURN_BYTES = 8;

/** Something that an image may not do, whatever comes of it. */
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

/** The image is about to execute an instruction. */
export interface TracePoint {
  readonly offset: number;
  readonly regs: Readonly<Record<RegisterName, bigint>>;
  /** The stack near the driver, from `stackStart` on. */
  readonly stack: Uint8Array;
  /** Where the log stands, in words. */
  readonly cursor: number;
}

export interface Stepped {
  readonly ended: Ended;
  readonly violations: readonly Violation[];
  readonly trace: readonly TracePoint[];
  readonly stackStart: Kaddr;
}

const REGISTERS: readonly RegisterName[] = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
  'rip',
];

/**
 * Executes a case. What the image calls is executed in one go, unless a program calls the image again.
 * @param length bytes of its image
 * @param keep whether to keep the trace: slow
 */
export function stepThrough(
  stage: Stage,
  ready: Ready,
  length: number,
  { steps, keep }: { readonly steps: number; readonly keep: boolean },
): Stepped {
  const { stack: addresses, top } = stage.callers;
  const [lowest] = addresses;
  const driverRsp = addresses[top];
  const cpu = stage.begin(ready, steps);
  if (lowest === undefined || driverRsp === undefined) throw new Bug('a stack that ends below the driver');
  // Whatever an image of any frame can reach, and what lies below it.
  const base = addrAdd(lowest, -BELOW_BYTES);
  const size = Number(driverRsp - base) + CALLER_BYTES;
  const { memory } = stage.machine;
  const stack = memory.bytes(base, size);
  const words = new BigUint64Array(stack.buffer, stack.byteOffset, size >> 3);
  const before = new Uint8Array(size);
  // An interrupt after every instruction: below rsp it leaves what was there at first.
  const interrupted = new Uint8Array(size);
  new BigUint64Array(interrupted.buffer, 0, size >> 3).fill(FILL);
  const { image } = ready.seat.place;
  const end = image + BigInt(length);
  const violations: Violation[] = [];
  const trace: TracePoint[] = [];
  const { config } = ready.one;
  const bytes = memory.bytes(image, length);
  const decoded = decoderOf(bytes);
  const nests = programsOf(ready.one).some(({ calls }) => calls);
  const looked = new Set<number>();
  /** Where in the stack each image's own part ends, the innermost call last. */
  const entries: number[] = [];

  const violation = (rule: Violation['rule'], offset: number, what: string): void => {
    violations.push({ rule, offset, what });
  };
  /** Where control next comes to the image: its start, then the first address in it on the stack. */
  const comesTo = (): Kaddr | undefined => {
    if (looked.size === 0) return image;
    for (let at = Number(cpu.regs.get('rsp') - base) >> 3; at >= 0 && at < words.length; at++) {
      const word = words[at] as bigint;
      if (word >= image && word < end) return kaddr(word);
    }
    return undefined;
  };

  let fault: Fault | null = null;
  for (;;) {
    const rip = cpu.regs.get('rip');
    const inside = rip >= image && rip < end;
    const offset = inside ? Number(rip - image) : 0;
    let rsp = 0;
    let stores: readonly bigint[] = [];
    if (inside) {
      rsp = Number(cpu.regs.get('rsp') - base);
      if (offset === 0) entries.push(rsp);
      const effects = decoded(offset);
      if (!looked.has(offset)) {
        looked.add(offset);
        // An emulator executes some things that no CPU does, and not all state is in the log.
        const { valid, foreign, perCpu, flow } = effects;
        if (!valid) violation('no-fault', offset, 'is no instruction');
        else if (foreign || (perCpu && !config.callDepth))
          violation('foreign-state', offset, 'uses other registers');
        if (flow === 'return' && config.rethunk)
          violation('return-hardening', offset, 'is no jump to the thunk');
        else if (flow === 'return' && config.sls && bytes[offset + effects.sizeBytes] !== INT3)
          violation('return-hardening', offset, 'has no int3 behind it');
      }
      stores = effects.perCpu ? [] : effects.stores.map((use) => addressOf(use, registersOf(use, cpu.regs)));
      before.set(stack);
      if (keep) {
        const regs = Object.fromEntries(REGISTERS.map((name) => [name, cpu.regs.get(name)]));
        trace.push({
          offset,
          regs: regs as TracePoint['regs'],
          stack: before.slice(),
          cursor: stage.cursor,
        });
      }
    }
    const next = inside || nests ? undefined : comesTo();
    const { reason, fault: stopped } = cpu.run(
      inside || nests ? { steps: 1 } : next === undefined ? {} : { stopAt: next },
    );
    if (inside) {
      const after = Number(cpu.regs.get('rsp') - base);
      const entry = entries.at(-1) ?? size;
      const low = Math.max(0, Math.min(rsp, after, size));
      const note = (rule: Violation['rule'], at: number): void => {
        if (at >= 0) violation(rule, offset, `writes at ${fromRsp(at - rsp)}`);
      };
      note('writes-below-rsp', firstChange(before, stack, Math.max(0, low - BELOW_BYTES), low));
      note('writes-outside-frame', firstChange(before, stack, entry, size));
      for (const address of stores) {
        const distance = Number(address - base) - Math.min(rsp, after);
        if (distance >= 0 && address < addrAdd(base, entry)) continue;
        const below = distance < 0 && distance >= -STACK_BYTES;
        violation(below ? 'writes-below-rsp' : 'writes-outside-frame', offset, `writes at ${hex64(address)}`);
      }
      if (after > 0 && after <= size) {
        const from = Math.max(0, after - BELOW_BYTES);
        stack.set(interrupted.subarray(from, after), from);
      }
      // Wherever rsp is, an image is not over before control leaves it; a call leaves its return address behind.
      const next = cpu.regs.get('rip');
      const leaves = next < image || next >= end;
      if (leaves && after >= entry && after >= rsp) entries.pop();
      // Whatever comes next, an interrupt or a call, writes there.
      if (!leaves && (after < 0 || after > entry + RETURN_BYTES)) {
        violations.push({
          rule: 'writes-outside-frame',
          offset,
          what: `moves rsp to ${fromRsp(after - rsp)}`,
        });
      }
    }
    if (reason === 'steps' || reason === 'stop') continue;
    fault = stopped;
    break;
  }
  const ended = { from: stage.logStart(ready.seat.number), to: stage.cursor, fault };
  return { ended, violations, trace, stackStart: base };
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
