import { type BpfInsn, isLdImm64 } from '../../jit/index.ts';
import { isConditional, isJa, jumpDistance } from '../verify/program-map.ts';

/*
 * A function while it is rewritten: a line for each instruction of the object, and what has become of it. Jumps know
 * their line, and find their distance in the end.
 */

export interface Line {
  /** Slot in the program as it was. */
  readonly origin: number;
  /** Slots that stand here. A jump stands alone. */
  insns: readonly BpfInsn[];
  /** Of a jump: the slot that it leads to, in the program as it was. */
  target: number | undefined;
}

/** The lines of `length` slots from `start` on. */
export function linesOf(insns: readonly BpfInsn[], start: number, length: number): Line[] {
  const lines: Line[] = [];
  for (let at = start; at < start + length; at++) {
    const insn = insns[at] as BpfInsn;
    const jumps = isJa(insn) || isConditional(insn);
    const target = jumps ? at + 1 + jumpDistance(insn) : undefined;
    lines.push({ origin: at, insns: isLdImm64(insn) ? insns.slice(at, at + 2) : [insn], target });
    if (isLdImm64(insn)) at++;
  }
  return lines;
}

/** The first line that still stands at or behind a slot. */
function lineFrom(lines: readonly Line[], slot: number): number {
  let low = 0;
  let high = lines.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((lines[middle] as Line).origin < slot) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Whether a line jumps to the one behind it. */
export const jumpsNowhere = (lines: readonly Line[], index: number): boolean => {
  const { target } = lines[index] as Line;
  return target !== undefined && lineFrom(lines, target) === index + 1;
};

/** The instructions, with the distances of jumps put in, and which slot each comes from. */
export function joined(lines: readonly Line[]): { insns: BpfInsn[]; origins: number[] } {
  const starts: number[] = [];
  let length = 0;
  for (const line of lines) {
    starts.push(length);
    length += line.insns.length;
  }
  const insns: BpfInsn[] = [];
  const origins: number[] = [];
  for (const line of lines) {
    const [first] = line.insns;
    if (line.target !== undefined && first !== undefined) {
      const distance = (starts[lineFrom(lines, line.target)] as number) - insns.length - 1;
      insns.push(isLong(first) ? { ...first, imm: distance } : { ...first, off: distance });
    } else {
      insns.push(...line.insns);
    }
    while (origins.length < insns.length) origins.push(line.origin);
  }
  return { insns, origins };
}

/** Whether the distance stands in imm. */
const isLong = (insn: BpfInsn): boolean => isJa(insn) && (insn.code & 7) === 6;
