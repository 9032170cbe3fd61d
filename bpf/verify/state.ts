import { BPF_REG_FP } from '../../jit/index.ts';
import { UNKNOWN } from './scalar.ts';
import { keyOf, NOTHING, NULL, type Value, widened } from './value.ts';

/*
 * The state of a program at one instruction, on one path: registers and stack of every function that is being
 * called, the outermost first.
 *
 * Kernel: struct bpf_verifier_state, struct bpf_func_state
 */

/** What a store has put on the stack; gone when another one overlaps it. */
interface Spilled {
  readonly off: number;
  readonly sizeBytes: number;
  readonly value: Value;
}

/** Why a function was entered, which decides what its end means. */
export type CallKind = 'program' | 'call' | 'callback';

export class FrameState {
  readonly subprog: number;
  readonly kind: CallKind;
  /** Where the caller goes on. */
  readonly returnTo: number;
  readonly registers: Value[];
  stack: readonly Spilled[] = [];

  constructor(subprog: number, kind: CallKind, returnTo: number, frame: number) {
    this.subprog = subprog;
    this.kind = kind;
    this.returnTo = returnTo;
    this.registers = new Array<Value>(BPF_REG_FP).fill(NOTHING);
    this.registers.push({ kind: 'stack', frame, off: 0, loose: false });
  }

  copy(): FrameState {
    const copy = new FrameState(this.subprog, this.kind, this.returnTo, 0);
    for (const [i, value] of this.registers.entries()) copy.registers[i] = value;
    copy.stack = this.stack;
    return copy;
  }

  /** What a load finds. Bytes that nothing is known of are numbers. */
  load(off: number, sizeBytes: number): Value {
    const found = this.stack.find((one) => one.off === off && one.sizeBytes === sizeBytes);
    return found?.value ?? UNKNOWN;
  }

  /** @param value undefined: somebody else writes there, nobody knows what */
  store(off: number, sizeBytes: number, value: Value | undefined): void {
    const others = this.stack.filter((one) => one.off + one.sizeBytes <= off || one.off >= off + sizeBytes);
    if (value !== undefined && !(value.kind === 'scalar' && value.min !== value.max)) {
      others.push({ off, sizeBytes, value });
      others.sort((a, b) => a.off - b.off);
    }
    this.stack = others;
  }
}

export class ProgramState {
  readonly frames: FrameState[];
  at: number;

  constructor(frames: FrameState[], at: number) {
    this.frames = frames;
    this.at = at;
  }

  get frame(): FrameState {
    return this.frames.at(-1) as FrameState;
  }

  copy(at: number = this.at): ProgramState {
    return new ProgramState(
      this.frames.map((frame) => frame.copy()),
      at,
    );
  }

  /** Where it is, callers included: states of different places are never compared. */
  get place(): string {
    return `${this.frames.map(({ returnTo, kind }) => `${kind[0]}${returnTo}`).join()}@${this.at}`;
  }

  /** All that can make a difference from here on. @param live registers that are read before they are written */
  key(live: number): string {
    const parts: string[] = [];
    const last = this.frames.length - 1;
    for (const [f, frame] of this.frames.entries()) {
      // A caller's r0 to r5 do not survive the call; of its r6 to r9 all may count.
      const mask = f === last ? live : 0b11_1100_0000;
      for (let r = 0; r < BPF_REG_FP; r++) {
        if ((mask >> r) & 1) parts.push(keyOf(frame.registers[r] as Value));
      }
      for (const { off, sizeBytes, value } of frame.stack) parts.push(`${off}/${sizeBytes}=${keyOf(value)}`);
      parts.push('|');
    }
    return parts.join(' ');
  }

  /** Gives up whatever differs from a state that was here before. */
  widen(before: ProgramState): void {
    for (const [f, frame] of this.frames.entries()) {
      const old = before.frames[f] as FrameState;
      for (let r = 0; r < BPF_REG_FP; r++) {
        frame.registers[r] = widened(frame.registers[r] as Value, old.registers[r] as Value);
      }
      frame.stack = frame.stack.filter(({ value }) => value.kind !== 'scalar');
    }
  }

  /** Forgets numbers on every stack: somebody writes there, again and again. */
  forgetNumbers(): void {
    for (const frame of this.frames) frame.stack = frame.stack.filter(({ value }) => value.kind !== 'scalar');
  }

  /** A pointer that might have been null was compared with null. */
  resolveNull(nullable: number, isNull: boolean): void {
    const resolved = (value: Value): Value => {
      if (!('nullable' in value) || value.nullable !== nullable) return value;
      return isNull ? NULL : { ...value, nullable: undefined };
    };
    for (const frame of this.frames) {
      for (const [r, value] of frame.registers.entries()) frame.registers[r] = resolved(value);
      frame.stack = frame.stack.map((one) => ({ ...one, value: resolved(one.value) }));
    }
  }
}
