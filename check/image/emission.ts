/*
 * What an emitter answers to a case's request, and whether it may: an image with its length and sites as
 * promised, or the errno that the kernel's rules ask for. Which of the two is decided here from the case
 * alone, without the emitters.
 */

import {
  type Prepared,
  type ProgRef,
  prepareTrampoline,
  type Revision,
  type RevisionName,
  TrampFlag,
  type TrampolineConfig,
  type TrampolineRequest,
} from '../../jit/index.ts';
import { Errno, errnoName, toHex } from '../../lib/index.ts';
import type { Finding } from '../finding.ts';
import { type ConfigCase, flagsOf, type ImageCase, KINDS, type Kind, programsOf } from './case.ts';
import type { Place } from './place.ts';
import { MAX_PROGRAMS } from './places.ts';
import { JUDGED } from './revision.ts';
import { countWords, hasWords, mostWords } from './words.ts';

const { RESTORE_REGS, CALL_ORIG, SKIP_FRAME, RET_FENTRY_RET, ORIG_STACK, INDIRECT } = TrampFlag;

const ENDBR = 'f30f1efa';
const RET_INT3 = 'c3cc';
/** Bytes at the end of the room that stay free. */
const SAFETY = 64;
const PAGE = 4096;
/** Room for the longest image that any case can ask for. */
const AMPLE = 16384;
/** What a text poke takes for a nop. */
const NOP5 = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/** Programs as messages call them: made once, for there are many cases. */
const NAMES = Object.fromEntries(
  KINDS.map((kind) => [kind, Array.from({ length: MAX_PROGRAMS }, (_, i) => `${kind}[${i}]`)]),
) as unknown as Readonly<Record<Kind, readonly string[]>>;

/** An image that can be called, or why there is none. */
export type Emitted = EmittedImage | { readonly image?: never; readonly findings: readonly Finding[] };

export interface EmittedImage {
  readonly image: Uint8Array;
  readonly ipAfterCall: number | null;
  readonly ipEpilogue: number | null;
}

/** Asks an emitter for a case's image. Findings without an image mean that the answer was wrong; none, a right refusal. */
export function emit(one: ImageCase, place: Place, emitter: Revision | RevisionName): Emitted {
  const room = PAGE - one.placing.offset;
  const prepared = answer(one, place, emitter, room);
  if ('findings' in prepared) return prepared;
  const due = refusalOf(one);
  if (due !== undefined) return { findings: prepared.ret === due ? [] : [refusalFinding(due, prepared)] };
  // Length decides the rest: it is the emitter's own, and has to fit.
  const ample = prepared.ret === -Errno.EFAULT ? answer(one, place, emitter, AMPLE) : prepared;
  if ('findings' in ample) return ample;
  if (ample.bytes === undefined) return { findings: [refusalFinding(undefined, ample)] };
  const length = ample.bytes.length;
  if (prepared.bytes === undefined) {
    return { findings: length > room - SAFETY ? [] : [refusalFinding(undefined, prepared)] };
  }
  if (length > room - SAFETY) return { findings: [refusalFinding(-Errno.EFAULT, prepared)] };
  const findings = [
    ...siteFindings(one, prepared),
    ...beginningFindings(one, prepared.bytes),
    ...endFindings(one, prepared.bytes),
    ...roomFindings(one, place, emitter, prepared),
  ];
  if (findings.length > 0) return { findings };
  const { bytes: image, ipAfterCall, ipEpilogue } = prepared;
  return { image, ipAfterCall, ipEpilogue };
}

function answer(
  one: ImageCase,
  place: Place,
  emitter: Revision | RevisionName,
  imageSize: number,
): Prepared | { readonly findings: readonly Finding[] } {
  try {
    return prepareTrampoline(emitter, requestOf(one, place, imageSize));
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { findings: [{ rule: 'refusal', detail: `the emitter failed: ${error.message}` }] };
  }
}

/** A case's request, at a place. */
export function requestOf(one: ImageCase, place: Place, imageSize: number): TrampolineRequest {
  const { fentry, fmodRet } = one;
  const refs = (kind: Kind, first: number): ProgRef[] =>
    one[kind].map(({ sleepable, jited, kind: pair, cookie }, i) => {
      const { prog, bpfFunc, insnsi } = place.programs[first + i] ?? NO_PROGRAM;
      const name = NAMES[kind][i] as string;
      return { prog, bpfFunc, insnsi, sleepable, jited, kind: pair, cookie, name };
    });
  return {
    image: place.image,
    imageSize,
    im: place.im,
    origCall: place.origCall,
    argSizes: one.args.map(({ sizeBytes }) => sizeBytes),
    retSize: one.ret?.sizeBytes ?? 0,
    flags: flagsOf(one),
    fentry: refs('fentry', 0),
    fmodRet: refs('fmodRet', fentry.length),
    fexit: refs('fexit', fentry.length + fmodRet.length),
    helpers: place.helpers,
    config: configOf(one.config, place),
    name: 'traced',
  };
}

function configOf({ ibt, rethunk, sls, endbr, callDepth }: ConfigCase, place: Place): TrampolineConfig {
  const config = { ibt, rethunk, sls, origCallStartsWithEndbr: endbr };
  return callDepth ? { ...config, callDepth: { counter: place.callDepth } } : config;
}

/**
 * The errno, negative, that a request must be refused with whatever its image would be; undefined when
 * nothing but the image's length can speak against it.
 */
export function refusalOf(one: ImageCase): number | undefined {
  const flags = flagsOf(one);
  const has = (flag: number): boolean => (flags & flag) !== 0;
  if (countWords(one).all > mostWords(one.revision)) return -Errno.ENOTSUPP;
  if (!hasWords(one.revision)) {
    if (has(RESTORE_REGS) && has(SKIP_FRAME)) return -Errno.EINVAL;
    const known = flags & JUDGED[one.revision].knownFlags;
    if ((known & RET_FENTRY_RET) !== 0 && flags !== RET_FENTRY_RET) return -Errno.EINVAL;
  }
  const programs = programsOf(one).length > 0;
  const callsFar = {
    nothing: false,
    helper: programs || has(CALL_ORIG),
    program: programs,
    original: has(CALL_ORIG) && !(hasWords(one.revision) && has(ORIG_STACK)),
  };
  return callsFar[one.placing.far] ? -Errno.EINVAL : undefined;
}

function refusalFinding(due: number | undefined, { ret }: Prepared): Finding {
  const said = (value: number): string =>
    value < 0 ? `-${errnoName(-value)}` : `an image of ${value} bytes`;
  const expected = due === undefined ? 'an image' : said(due);
  return {
    rule: 'refusal',
    detail: 'the emitter answers otherwise than the kernel',
    expected,
    seen: said(ret),
  };
}

function siteFindings(
  one: ImageCase,
  { ret, bytes, ipAfterCall, ipEpilogue }: Prepared & { readonly bytes: Uint8Array },
): readonly Finding[] {
  const wrong = (detail: string, expected: string, seen: string): Finding[] => [
    { rule: 'length-and-sites', detail, expected, seen },
  ];
  const length = bytes.length + JUDGED[one.revision].spareBytes;
  if (ret !== length) return wrong('the length is not that of the bytes', `${length}`, `${ret}`);
  return sitesWrong(bytes, { ipAfterCall, ipEpilogue }, (flagsOf(one) & CALL_ORIG) !== 0, wrong);
}

/** What can be seen of an image without calling it: how it begins. */
export function beginningFindings(one: ImageCase, bytes: Uint8Array): readonly Finding[] {
  const { revision, config } = one;
  const byPointer = JUDGED[revision].endbrAlways || (flagsOf(one) & INDIRECT) !== 0;
  if (!hasWords(revision) || !config.ibt || !byPointer) return [];
  const seen = toHex(bytes.subarray(0, ENDBR.length / 2));
  if (seen === ENDBR) return [];
  return [{ rule: 'endbr', detail: 'the image begins otherwise', expected: ENDBR, seen }];
}

/** How images of our own emitters end. Others are watched for it: they may have code behind their return. */
function endFindings({ revision, config }: ImageCase, bytes: Uint8Array): readonly Finding[] {
  if (!hasWords(revision) || !config.sls || config.rethunk) return [];
  const seen = toHex(bytes.subarray(-RET_INT3.length / 2));
  if (seen === RET_INT3) return [];
  return [{ rule: 'return-hardening', detail: 'the image ends otherwise', expected: RET_INT3, seen }];
}

/** The sites that an image needs so that it can be retired. */
export function sitesWrong(
  bytes: Uint8Array,
  { ipAfterCall, ipEpilogue }: { readonly ipAfterCall: number | null; readonly ipEpilogue: number | null },
  calls: boolean,
  wrong: (detail: string, expected: string, seen: string) => Finding[],
): readonly Finding[] {
  const sites = [
    ['ip_after_call', ipAfterCall],
    ['ip_epilogue', ipEpilogue],
  ] as const;
  for (const [name, offset] of sites) {
    if ((offset !== null) === calls) continue;
    const when = calls ? 'an offset: the original is called' : 'none: the original is not called';
    return wrong(
      `${name} is not as it must be`,
      when,
      offset === null ? 'none' : `+0x${offset.toString(16)}`,
    );
  }
  if (ipAfterCall === null || ipEpilogue === null) return [];
  if (!NOP5.every((byte, i) => bytes[ipAfterCall + i] === byte)) {
    const there = toHex(bytes.subarray(ipAfterCall, ipAfterCall + NOP5.length));
    return wrong('no nop of 5 bytes at ip_after_call', toHex(Uint8Array.from(NOP5)), there);
  }
  const inNop = ipEpilogue >= ipAfterCall && ipEpilogue < ipAfterCall + NOP5.length;
  if (inNop || ipEpilogue >= bytes.length) {
    const range = `outside of the nop and before the end, +0x${bytes.length.toString(16)}`;
    return wrong('ip_epilogue is nowhere that a jump could go', range, `+0x${ipEpilogue.toString(16)}`);
  }
  return [];
}

/** The same request with as much room as the image needs, or less. */
function roomFindings(
  one: ImageCase,
  place: Place,
  emitter: Revision | RevisionName,
  { bytes }: { readonly bytes: Uint8Array },
): readonly Finding[] {
  const { room } = one.placing;
  if (room === 'page') return [];
  const size = { exact: bytes.length + SAFETY, short: bytes.length + SAFETY - 1, none: SAFETY }[room];
  const prepared = answer(one, place, emitter, size);
  if ('findings' in prepared) return prepared.findings;
  if (room !== 'exact')
    return prepared.ret === -Errno.EFAULT ? [] : [refusalFinding(-Errno.EFAULT, prepared)];
  if (prepared.bytes === undefined) return [refusalFinding(undefined, prepared)];
  if (Buffer.compare(prepared.bytes, bytes) === 0) return [];
  return [{ rule: 'length-and-sites', detail: 'other bytes come out where there is less room' }];
}

const NO_PROGRAM = { prog: 0n, bpfFunc: 0n, insnsi: 0n } as never;
