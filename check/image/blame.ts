/*
 * Which instruction of an image is at fault: the call is made again, instruction by instruction, and
 * the wrong value is followed back to who wrote it.
 *
 *   a register      the last instruction that wrote it. When that one loaded the wrong value from memory,
 *                   and the right value is nowhere in the frame: the last one that stored there
 *   memory          the last instruction that stored there
 *   the wrong call  the branch that led to it, if there was one since the last right call, else the call
 *
 * When nothing wrote it although something should have: the instruction that used it.
 *
 * Where what is found is ours, byte for byte, the first instruction that is not is at fault. An instruction of an
 * image of another length is ours as long as all before it is, too.
 */

import { disassemble } from '../../jit/index.ts';
import { addrAdd, type Kaddr } from '../../lib/index.ts';
import type { FindingPlace } from '../finding.ts';
import { addressOf, type Effects, effectsOf, type MemoryUse } from './decode.ts';
import type { Hint } from './judge.ts';
import type { Stepped, TracePoint } from './step-through.ts';

const WORD = 8;

/** An instruction of the image that was executed. */
interface Executed extends TracePoint {
  readonly effects: Effects;
}

/**
 * @param image as it was called
 * @param ours what our emitter makes of the same request
 */
export function blame(
  hint: Hint,
  stepped: Stepped | undefined,
  image: Uint8Array,
  ours?: Uint8Array,
): number | undefined {
  if (hint.what === 'instruction') return hint.offset;
  if (stepped === undefined) return undefined;
  const known = new Map<number, Effects>();
  const executed = stepped.trace.map((point): Executed => {
    const effects = known.get(point.offset) ?? effectsOf(image.subarray(point.offset));
    known.set(point.offset, effects);
    return { ...point, effects };
  });
  const from = stepped.ended.from;
  // What the image did until the record was written: its call of who wrote it included.
  const until = executed.filter(({ cursor }) => cursor - from <= hint.at);
  const user = until.at(-1);
  if (user === undefined) return undefined;
  const found = culprit(hint, until, user, stepped);
  if (ours === undefined) return found;
  const parting = ours.length === image.length ? undefined : partingOf(image, ours);
  const differs = ({ offset, effects }: Executed): boolean => {
    if (parting !== undefined) return offset >= parting;
    const end = offset + effects.sizeBytes;
    return Buffer.compare(image.subarray(offset, end), ours.subarray(offset, end)) !== 0;
  };
  if (until.some((point) => point.offset === found && differs(point))) return found;
  return until.find(differs)?.offset ?? found;
}

/** Where an image of another length first goes another way than ours; how far its branches go does not count. */
function partingOf(image: Uint8Array, ours: Uint8Array): number {
  for (let at = 0; at < image.length; ) {
    const { sizeBytes, flow } = effectsOf(image.subarray(at));
    const isBranch = flow === 'branch' || flow === 'jump';
    // opcode, and a displacement of one byte or four
    const compared = isBranch ? sizeBytes - (sizeBytes === 2 ? 1 : 4) : sizeBytes;
    const end = at + compared;
    if (Buffer.compare(image.subarray(at, end), ours.subarray(at, end)) !== 0) return at;
    at += sizeBytes;
  }
  return image.length;
}

function culprit(
  hint: Exclude<Hint, { readonly what: 'instruction' }>,
  until: readonly Executed[],
  user: Executed,
  stepped: Stepped,
): number {
  switch (hint.what) {
    case 'call':
      return user.offset;
    case 'flow':
      return flow(until, user);
    case 'memory':
      return storeOf(until, hint.address, hint.sizeBytes)?.offset ?? user.offset;
    case 'register':
      return register(until, user, hint, stepped);
  }
}

function flow(until: readonly Executed[], user: Executed): number {
  const since = until.filter(({ cursor }) => cursor === user.cursor);
  return since.findLast(({ effects }) => effects.flow === 'branch')?.offset ?? user.offset;
}

function register(
  until: readonly Executed[],
  user: Executed,
  { name, expected }: Hint & { readonly what: 'register' },
  stepped: Stepped,
): number {
  const saved = ['rbx', 'rbp', 'rsp', 'r12', 'r13', 'r14', 'r15'].includes(name);
  // Callees leave saved registers alone; others are worth nothing behind a call.
  const since = saved ? until : until.filter(({ cursor }) => cursor === user.cursor);
  const writer = since.findLast(({ effects }) => effects.writes.includes(name));
  if (writer === undefined) return user.offset;
  const [load] = writer.effects.loads;
  if (expected === undefined || load === undefined || writer.effects.flow !== 'next') return writer.offset;
  const address = addressOf(load, writer.regs);
  const size = Math.min(load.sizeBytes, WORD);
  const right = BigInt.asUintN(8 * size, expected);
  if (wordAt(writer, address, size, stepped.stackStart) === right) return writer.offset;
  const frame = Number(writer.regs.rbp - writer.regs.rsp);
  for (let at = 0; at >= 0 && at < frame; at += WORD) {
    const slot = addrAdd(writer.regs.rsp as Kaddr, at);
    if (wordAt(writer, slot, size, stepped.stackStart) === right) return writer.offset;
  }
  const before = until.slice(0, until.indexOf(writer));
  return storeOf(before, address, size)?.offset ?? writer.offset;
}

/** The last store to some bytes. */
function storeOf(until: readonly Executed[], address: bigint, sizeBytes: number): Executed | undefined {
  const touches = (use: MemoryUse, regs: Executed['regs']): boolean => {
    const start = addressOf(use, regs);
    return start < address + BigInt(sizeBytes) && address < start + BigInt(use.sizeBytes);
  };
  return until.findLast(({ effects, regs }) => effects.stores.some((use) => touches(use, regs)));
}

function wordAt({ stack }: TracePoint, address: bigint, sizeBytes: number, start: Kaddr): bigint | undefined {
  const at = Number(address - start);
  if (at < 0 || at + sizeBytes > stack.length) return undefined;
  let value = 0n;
  for (let i = sizeBytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(stack[at + i] as number);
  return value;
}

/** How an instruction at fault is shown. */
export function placeOf(
  offset: number,
  image: Uint8Array,
  start: Kaddr,
  step: string | undefined,
): FindingPlace {
  const rows = disassemble(image.subarray(offset, offset + 15), addrAdd(start, offset));
  const instruction = (rows[0]?.text ?? '(bad)').replace(/\s+/g, ' ');
  return step === undefined ? { offset, instruction } : { offset, instruction, step };
}
