/*
 * One case with its image executed instruction by instruction, so that each can be watched (watch.ts); on request
 * everything is kept that blame.ts needs to say which of them is at fault.
 */

import type { RegisterName, Registers, RunOptions } from '../../emu/index.ts';
import { type Kaddr, kaddr } from '../../lib/index.ts';
import { programsOf } from './case.ts';
import type { Ended, Ready, Stage } from './stage.ts';
import { type Violation, Watch } from './watch.ts';

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

const ONE_STEP: RunOptions = { steps: 1 };

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
  const cpu = stage.begin(ready, steps);
  const { regs } = cpu;
  const watch = new Watch(stage, ready, length);
  const { image } = ready.seat.place;
  const inImage = (address: bigint): boolean => address >= image && address < image + BigInt(length);
  const nests = programsOf(ready.one).some(({ calls }) => calls);
  const trace: TracePoint[] = [];
  for (;;) {
    const rip = regs.get('rip');
    const inside = inImage(rip);
    const offset = inside ? Number(rip - image) : 0;
    if (inside) {
      watch.begin(offset, regs);
      if (keep) {
        const { cursor } = stage;
        trace.push({ offset, regs: allOf(regs), stack: watch.before.slice(), cursor });
      }
    }
    const { reason, fault } = cpu.run(inside || nests ? ONE_STEP : untilBack(watch, regs, image, inImage));
    if (inside) watch.end(offset, regs, !inImage(regs.get('rip')));
    if (reason === 'steps' || reason === 'stop') continue;
    const ended = { from: stage.logStart(ready.seat.number), to: stage.cursor, fault };
    return { ended, violations: watch.violations, trace, stackStart: watch.stackStart };
  }
}

/** Until control comes to the image: to its start, later to the first address in it on the stack. */
function untilBack(
  { entered, stack, stackStart }: Watch,
  regs: Registers,
  image: Kaddr,
  inImage: (address: bigint) => boolean,
): RunOptions {
  if (!entered) return { stopAt: image };
  const words = new BigUint64Array(stack.buffer, stack.byteOffset, stack.length >> 3);
  const top = Number(regs.get('rsp') - stackStart) >> 3;
  const back = top < 0 ? undefined : words.subarray(top).find(inImage);
  return back === undefined ? {} : { stopAt: kaddr(back) };
}

function allOf(regs: Registers): TracePoint['regs'] {
  return Object.fromEntries(REGISTERS.map((name) => [name, regs.get(name)])) as TracePoint['regs'];
}
