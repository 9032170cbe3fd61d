/* Smaller cases: fewer programs and arguments first, then plainer manners, plainer surroundings, plainer numbers. */

import { isDeepStrictEqual } from 'node:util';
import { HelperPair } from '../../jit/index.ts';
import {
  flagsOf,
  type ImageCase,
  KINDS,
  type Kind,
  PLAIN_CONFIG,
  type ProgramCase,
  type ValueModel,
} from './case.ts';
import { countWords } from './words.ts';

const PLAIN_VALUE: ValueModel = { sizeBytes: 8, signed: false };
const PLAIN_GARBAGE = 0xdead_0000_0000_0000n;
const PLAIN_CLOCK = 1_000_000_000n;

/** Numbers that tell registers apart at a glance. */
const plainWord = (i: number): bigint => BigInt((i + 1) * 0x11);

/** Every case that is smaller by one thing. */
export function* shrink(one: ImageCase): Iterable<ImageCase> {
  for (const kind of KINDS) yield* fewerPrograms(one, kind);
  yield* fewerArgs(one);
  yield* plainerPrograms(one);
  yield* plainerCase(one);
}

function* fewerPrograms(one: ImageCase, kind: Kind): Iterable<ImageCase> {
  const programs = one[kind];
  const { length } = programs;
  if (length > 2) {
    const half = length >> 1;
    yield { ...one, [kind]: programs.slice(0, half) };
    yield { ...one, [kind]: programs.slice(half) };
  }
  for (let i = 0; i < length; i++) yield { ...one, [kind]: programs.toSpliced(i, 1) };
}

function* fewerArgs(one: ImageCase): Iterable<ImageCase> {
  for (let i = one.args.length - 1; i >= 0; i--) {
    const args = one.args.toSpliced(i, 1);
    const words = countWords({ ...one, args }).all;
    // A write to a word that is gone goes, too.
    const kept = (prog: ProgramCase): ProgramCase =>
      prog.writes !== null && prog.writes.word >= words ? { ...prog, writes: null } : prog;
    yield {
      ...one,
      args,
      fentry: one.fentry.map(kept),
      fmodRet: one.fmodRet.map(kept),
      fexit: one.fexit.map(kept),
    };
  }
  for (const [i, arg] of one.args.entries()) {
    // A struct that becomes a word moves what is behind it.
    if (arg.sizeBytes > 8 && programsWrite(one)) continue;
    if (arg.sizeBytes !== 8 || arg.signed) yield { ...one, args: one.args.with(i, PLAIN_VALUE) };
  }
}

function programsWrite(one: ImageCase): boolean {
  return KINDS.some((kind) => one[kind].some(({ writes }) => writes !== null));
}

function* plainerPrograms(one: ImageCase): Iterable<ImageCase> {
  for (const kind of KINDS) {
    for (const [i, prog] of one[kind].entries()) {
      for (const plainer of plainerProgram(prog, kind)) yield { ...one, [kind]: one[kind].with(i, plainer) };
    }
  }
}

function* plainerProgram(prog: ProgramCase, kind: Kind): Iterable<ProgramCase> {
  if (prog.calls) yield { ...prog, calls: false };
  if (prog.faults) yield { ...prog, faults: false };
  if (prog.writes !== null) yield { ...prog, writes: null };
  if (prog.running) yield { ...prog, running: false };
  if (!prog.jited) yield { ...prog, jited: true };
  if (prog.sleepable) yield { ...prog, sleepable: false };
  if (prog.kind !== HelperPair.RECUR) yield { ...prog, kind: HelperPair.RECUR };
  if (prog.cookie !== 0n) yield { ...prog, cookie: 0n };
  if (prog.wantsIp) yield { ...prog, wantsIp: false };
  const plain = kind === 'fmodRet' && prog.returns !== 0n ? [0n, 1n] : [0n];
  for (const returns of plain) {
    if (prog.returns > returns) yield { ...prog, returns };
  }
}

function* plainerCase(one: ImageCase): Iterable<ImageCase> {
  const { placing, registers, returns } = one;
  if (one.flags !== null && flagsOf({ ...one, flags: null }) === one.flags) yield { ...one, flags: null };
  for (const [name, on] of Object.entries(one.config)) {
    if (on === true)
      yield { ...one, config: { ...one.config, [name]: PLAIN_CONFIG[name as keyof typeof PLAIN_CONFIG] } };
  }
  if (one.retired) yield { ...one, retired: false };
  if (one.statistics) yield { ...one, statistics: false };
  if (one.watched) yield { ...one, watched: false };
  if (one.clock !== PLAIN_CLOCK) yield { ...one, clock: PLAIN_CLOCK };
  if (placing.room !== 'page') yield { ...one, placing: { ...placing, room: 'page' } };
  if (placing.far !== 'nothing') yield { ...one, placing: { ...placing, far: 'nothing' } };
  if (placing.low) yield { ...one, placing: { ...placing, low: false } };
  if (placing.offset !== 0) yield { ...one, placing: { ...placing, offset: 0 } };
  if (one.ret !== null) yield { ...one, ret: null };
  const plain = {
    args: registers.args.map((_, i) => plainWord(i)),
    saved: registers.saved.map((_, i) => plainWord(i + 6)),
    rax: plainWord(12),
    stack: registers.stack.map((_, i) => plainWord(i + 15)),
    stackWords: 0,
    garbage: PLAIN_GARBAGE,
  };
  if (!isDeepStrictEqual(plain, registers)) yield { ...one, registers: plain };
  const answers = { original: plainWord(13), body: plainWord(14) };
  if (!isDeepStrictEqual(answers, returns)) yield { ...one, returns: answers };
}
