/* Cases from random numbers: mostly small ones, with every boundary that a rule has now and then. */

import { HelperPair, type RevisionName, TrampFlag } from '../../jit/index.ts';
import type { FamilyOptions } from '../family.ts';
import type { Random } from '../random.ts';
import {
  acceptedFlags,
  type ConfigCase,
  flagsOf,
  type ImageCase,
  KINDS,
  type Kind,
  knownFlags,
  MAX_STACK_WORDS,
  PLAIN_CONFIG,
  type Placing,
  type ProgramCase,
  STACK_ARG_WORDS,
  type ValueModel,
} from './case.ts';
import { JUDGED } from './revision.ts';
import { countWords, hasWords, mostWords, wordsIn } from './words.ts';

const SIZES = [8, 8, 4, 4, 2, 1];
const PAIRS = [HelperPair.RECUR, HelperPair.RECUR, HelperPair.PLAIN, HelperPair.LSM_CGROUP];

/** Values at which something changes: signs and carries of each width, ends of the address space. */
export const BOUNDARIES: readonly bigint[] = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x7fff_ffff_ffffn,
  0x8000_0000_0000n,
  0xffff_8000_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_8000_0000n,
  0xffff_ffff_ffff_ff80n,
  0xffff_ffff_ffff_ffffn,
];

/** What ends an fmod_ret chain: values that are zero, positive or negative by halves. */
const SPOKEN: readonly bigint[] = [
  1n,
  0xffff_ffff_ffff_ffffn,
  0xffff_ffff_ffff_ffean,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x8000_0000_0000_0000n,
  0x8000_0000n,
];

/** Start times that are awkward: 0 means do not run, 1 means no time, others are zero or negative by halves. */
const CLOCKS: readonly bigint[] = [0n, 1n, 0x1_0000_0000n, 0x8000_0000_0000_0000n, 0xffff_ffff_0000_0000n];
const CLOCK = 1_000_000_000n;

/** Programs of one kind at most. */
const MAX_OF_A_KIND = 38;
/** Of all kinds together: what a stage has places for. */
const MAX_TOGETHER = 76;

/** What is drawn last of a program and of a case: it depends on the rest. */
type ProgramDraft = ProgramCase & { writes: ProgramCase['writes'] };
type Draft = ImageCase & Record<Kind, readonly ProgramDraft[]> & { retired: boolean };

export function generate(random: Random, { revisions }: FamilyOptions): ImageCase {
  const revision = random.pick(revisions);
  const v6 = hasWords(revision);
  const args = v6 ? argsInWords(random, revision) : argsInRegisters(random);
  const counts = programCounts(random);
  const flags = random.once(3) ? rawFlags(random, revision) : null;
  const draft: Draft = {
    revision,
    config: v6 ? config(random, revision) : PLAIN_CONFIG,
    args,
    ret: random.once(4) ? null : valueModel(random),
    flags,
    fentry: programs(random, revision, 'fentry', counts.fentry),
    fmodRet: programs(random, revision, 'fmodRet', counts.fmodRet),
    fexit: programs(random, revision, 'fexit', counts.fexit),
    placing: placing(random),
    registers: {
      args: times(6, () => value(random)),
      saved: times(6, () => random.u64()),
      rax: random.u64(),
      stack: times(STACK_ARG_WORDS, () => (v6 ? value(random) : 0n)),
      stackWords: random.once(2) ? 0 : random.int(1, MAX_STACK_WORDS),
      garbage: random.once(4) ? random.pick([0n, 1n, 0xffff_ffff_ffff_ffffn]) : random.u64(),
    },
    returns: { original: value(random), body: value(random) },
    statistics: random.once(6),
    clock: clock(random),
    retired: false,
    watched: random.once(32),
  };
  const calls = (flagsOf(draft) & TrampFlag.CALL_ORIG) !== 0;
  draft.retired = calls && random.once(5);
  drawWrites(random, draft);
  return draft;
}

/** Mostly what an emitter takes; now and then anything, bits included that it does not know. */
function rawFlags(random: Random, revision: RevisionName): number {
  const anything = hasWords(revision) ? random.once(4) : random.once(16);
  if (anything) return random.int(0, hasWords(revision) ? 511 : 63);
  return random.pick(acceptedFlags(revision));
}

function argsInRegisters(random: Random): readonly ValueModel[] {
  const nrArgs = random.once(64) ? 7 : random.int(0, 6);
  return times(nrArgs, () => valueModel(random));
}

/** Up to the words that a revision takes, now and then one more than that; among them structs of up to 16 bytes. */
function argsInWords(random: Random, revision: RevisionName): readonly ValueModel[] {
  const most = mostWords(revision) + (random.once(32) ? 2 : 0);
  const words = random.int(0, random.once(3) ? most : Math.min(most, 6));
  const args: ValueModel[] = [];
  for (let taken = 0; ; ) {
    const arg = random.once(4)
      ? { sizeBytes: random.int(1, 16), signed: false }
      : { sizeBytes: random.pick(SIZES), signed: random.once(2) };
    taken += wordsIn(revision, arg);
    if (taken > words) return args;
    args.push(arg);
  }
}

function config(random: Random, revision: RevisionName): ConfigCase {
  if (!random.once(3)) return PLAIN_CONFIG;
  return {
    ibt: random.once(2),
    rethunk: random.once(3),
    sls: random.once(2),
    endbr: random.once(2),
    callDepth: JUDGED[revision].countsCalls && random.once(2),
  };
}

function valueModel(random: Random): ValueModel {
  return { sizeBytes: random.pick(SIZES), signed: random.once(2) };
}

function value(random: Random): bigint {
  return random.once(3) ? random.pick(BOUNDARIES) : random.u64();
}

function clock(random: Random): bigint {
  if (random.once(2)) return CLOCK;
  // The n-th reading is the awkward one.
  return BigInt.asUintN(64, random.pick(CLOCKS) - 10n * BigInt(random.int(0, 6)));
}

function programCounts(random: Random): Readonly<Record<Kind, number>> {
  const few = (): number => (random.once(2) ? 0 : random.once(4) ? random.int(2, 3) : 1);
  if (!random.once(128)) return { fentry: few(), fmodRet: few(), fexit: few() };
  const many = (): number =>
    random.pick([0, 1, MAX_OF_A_KIND - 1, MAX_OF_A_KIND, random.int(2, MAX_OF_A_KIND)]);
  const fentry = many();
  const fmodRet = many();
  return { fentry, fmodRet, fexit: Math.min(many(), MAX_TOGETHER - fentry - fmodRet) };
}

const COOKIES: readonly bigint[] = [0n, 1n, 0x8000_0000n, 0xffff_ffffn, 0xffff_ffff_8000_0000n];

function programs(random: Random, revision: RevisionName, kind: Kind, count: number): ProgramDraft[] {
  const v6 = hasWords(revision);
  return times(count, () => ({
    sleepable: random.once(3),
    jited: !random.once(8),
    kind: v6 ? random.pick(PAIRS) : HelperPair.RECUR,
    cookie: v6 ? (random.once(2) ? random.pick(COOKIES) : random.u64()) : 0n,
    wantsIp: random.once(4),
    running: random.once(8),
    returns: kind === 'fmodRet' ? spoken(random) : value(random),
    writes: null,
    calls: random.once(16),
    faults: random.once(256),
  }));
}

function spoken(random: Random): bigint {
  return random.once(3) ? random.pick(SPOKEN) : 0n;
}

function placing(random: Random): Placing {
  return {
    offset: random.once(4) ? random.int(0, 255) : 0,
    low: random.once(8),
    room: random.once(32) ? random.pick(['exact', 'short', 'none']) : 'page',
    far: random.once(64) ? random.pick(['helper', 'program', 'original']) : 'nothing',
  };
}

/** Lets some programs write to their context: an argument, or the result where there is room for one. */
function drawWrites(random: Random, one: Draft): void {
  const keeps = TrampFlag.CALL_ORIG | TrampFlag.RET_FENTRY_RET;
  const hasResult = (flagsOf(one) & knownFlags(one.revision) & keeps) !== 0;
  const words = countWords(one).all + (hasResult ? 1 : 0);
  if (words === 0) return;
  for (const kind of KINDS) {
    for (const prog of one[kind]) {
      if (random.once(8)) prog.writes = { word: random.int(0, words - 1), value: value(random) };
    }
  }
}

/** Array.from with a length takes its time. */
function times<T>(count: number, make: () => T): T[] {
  const all: T[] = [];
  for (let i = 0; i < count; i++) all.push(make());
  return all;
}
