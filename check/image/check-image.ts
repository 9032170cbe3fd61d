/*
 * Judges an image that somebody else made, at its own addresses: by every situation that it can meet.
 */

import type { EngineName } from '../../emu/index.ts';
import {
  HelperPair,
  insnAt,
  type Prepared,
  type ProgRef,
  prepareTrampoline,
  type RevisionName,
  stepPath,
  TrampFlag,
  type TrampolineRequest,
} from '../../jit/index.ts';
import { errnoName, hex64, InputError } from '../../lib/index.ts';
import type { Finding } from '../finding.ts';
import {
  type ImageCase,
  JUDGED_REVISIONS,
  type ProgramCase,
  STACK_ARG_WORDS,
  type ValueModel,
} from './case.ts';
import { beginningFindings, sitesWrong } from './emission.ts';
import { Expectation } from './expectation.ts';
import { GivenPlaces } from './given.ts';
import { Oracle } from './oracle.ts';
import { retired } from './runner.ts';
import { shrink } from './shrink.ts';
import { type Situation, situationsOf } from './situations.ts';
import { Stage } from './stage.ts';
import { type Setting, tryAlone } from './trial.ts';

/** Cases after which a stage is opened anew. */
const CASES_PER_STAGE = 8000;
const PAGE_BYTES = 4096;
const SAFETY = 64;

/** An image, and what it was made for. */
export interface GivenImage {
  readonly request: TrampolineRequest;
  readonly bytes: Uint8Array;
  /** Offsets as its emitter reported them; undefined, both of them, when nobody knows. */
  readonly ipAfterCall?: number | null | undefined;
  readonly ipEpilogue?: number | null | undefined;
  /** Types of the arguments; signs do not matter to images. */
  readonly args?: readonly ValueModel[];
}

/** A broken rule, with the smallest call that shows it. */
export interface ImageFinding extends Finding {
  readonly case: ImageCase;
}

export interface ImageReport {
  /** Calls that the image was made to answer. */
  readonly situations: readonly Situation[];
  /** The first finding of each rule. */
  readonly findings: readonly ImageFinding[];
  /** Whether every call did exactly what the kernel's frame makes it do, to the last word. */
  readonly exact: boolean;
  /** Rules that could not be judged, and why. */
  readonly unjudged: readonly string[];
}

interface Open {
  readonly stage: Stage;
  readonly places: GivenPlaces;
  readonly oracle: Oracle;
}

/** Judges images of one revision, on a machine of its own. */
export class ImageChecker {
  readonly #revision: RevisionName;
  readonly #engine: EngineName;
  readonly #requests: readonly TrampolineRequest[];
  readonly #expectation = new Expectation();
  #theatre: Open;
  #cases = 0;

  private constructor(
    revision: RevisionName,
    engine: EngineName,
    requests: readonly TrampolineRequest[],
    theatre: Open,
  ) {
    this.#revision = revision;
    this.#engine = engine;
    this.#requests = requests;
    this.#theatre = theatre;
  }

  /**
   * @param requests every request whose images will be judged: their addresses are mapped
   * @throws InputError for a revision without judge, for addresses that cannot be mapped or overlap, and
   *   for a missing engine
   */
  static async open(
    revision: RevisionName,
    requests: readonly TrampolineRequest[],
    options: { readonly engine?: EngineName } = {},
  ): Promise<ImageChecker> {
    if (!JUDGED_REVISIONS.includes(revision)) {
      const there = JUDGED_REVISIONS.join(', ');
      throw new InputError(
        'revision',
        undefined,
        `images of ${revision} cannot be judged; there are ${there}`,
      );
    }
    requests.forEach(refuseConfig);
    const engine = options.engine ?? 'unicorn';
    return new ImageChecker(revision, engine, requests, await openTheatre(revision, engine, requests));
  }

  close(): void {
    this.#theatre.stage.close();
  }

  /**
   * Makes an image answer every call that `situations` lists.
   * @param options.situations default: everything that can happen to an image of this request
   * @param options.quick stop at the first broken rule, and say of it no more than what it is
   * @throws InputError when the kernel refuses the request, so that there can be no image; when only one of the
   *   two sites is given
   */
  async check(
    image: GivenImage,
    options: { readonly situations?: readonly Situation[]; readonly quick?: boolean } = {},
  ): Promise<ImageReport> {
    const { situations, quick = false } = options;
    if (this.#cases >= CASES_PER_STAGE) {
      this.#theatre.stage.close();
      this.#theatre = await openTheatre(this.#revision, this.#engine, this.#requests);
      this.#cases = 0;
    }
    const own = this.#ownImage(image.request);
    refuseOneSite(image);
    const still = plainCase(this.#revision, image);
    const calls = situations ?? situationsOf(still, 0);
    const wrong = [...stillWrong(image), ...beginningFindings(still, image.bytes)];
    if (wrong.length > 0) {
      const findings = wrong.map((finding) => ({ ...finding, case: still }));
      return { situations: [], findings, exact: false, unjudged: [] };
    }
    const sites = sitesOf(image, own);
    const unjudged: string[] = [];
    const counts = this.#theatre.places.countsAtomically(image.request);
    const judged = calls.filter(({ one }) => !one.retired || (counts && sites.ipAfterCall !== null));
    if (!counts) unjudged.push('image-reference: im is in text of the machine, where nothing can be counted');
    else if (judged.length < calls.length) {
      unjudged.push(
        'retired-epilogue: ip_after_call and ip_epilogue are not known; give ipAfterCall and ipEpilogue',
      );
    }
    const findings = new Map<string, ImageFinding>();
    let exact = true;
    for (const { one } of judged) {
      const tried = this.#try(one, image, sites, own, false);
      exact &&= tried.exact;
      for (const finding of tried.findings) {
        if (!findings.has(finding.rule)) findings.set(finding.rule, { ...finding, case: one });
      }
      if (quick && findings.size > 0) break;
    }
    const smallest = [...findings.values()].map((finding) =>
      quick ? finding : this.#smallest(finding, image, sites, own),
    );
    this.#theatre.places.clear();
    return { situations: judged, findings: smallest, exact, unjudged };
  }

  #ownImage(request: TrampolineRequest): Own {
    const prepared = prepareTrampoline(this.#revision, request, { provenance: true });
    if (prepared.bytes !== undefined) return prepared;
    const why = `-${errnoName(-prepared.ret)}: ${prepared.why}`;
    throw new InputError(
      'request',
      undefined,
      `${this.#revision} refuses it (${why}), so there is no image to judge`,
    );
  }

  #try(
    one: ImageCase,
    image: GivenImage,
    sites: Sites,
    own: Own,
    blamed: boolean,
  ): ReturnType<typeof tryAlone> {
    const { stage, places, oracle } = this.#theatre;
    const { request, bytes } = image;
    this.#cases++;
    stage.runtime.statsEnabled = one.statistics;
    const called = one.retired ? retired(bytes, sites.ipAfterCall, sites.ipEpilogue) : bytes;
    const setting: Setting = {
      stage,
      expectation: this.#expectation,
      image: called,
      ours: one.retired ? retired(own.bytes, own.ipAfterCall, own.ipEpilogue) : own.bytes,
      seat: () => {
        const seat = places.seat(request, called, one.retired);
        const expected = oracle.expect(one, seat.place, this.#expectation);
        const ready = { one, seat, expected };
        stage.prepare(ready);
        return ready;
      },
      clear: () => places.remains(request),
      stepAt: (offset) => {
        if (own.code === undefined || !standsAsOurs(bytes, own.bytes, offset)) return undefined;
        const insn = insnAt(own.code, offset);
        // The same instruction only where ours begins, too.
        return insn?.offset === offset ? stepPath(insn.step) : undefined;
      },
    };
    return tryAlone(setting, { watched: one.watched, blamed });
  }

  /** The same finding by the plainest call that shows it, and the instruction at fault. */
  #smallest(found: ImageFinding, image: GivenImage, sites: Sites, own: Own): ImageFinding {
    const shows = (one: ImageCase, blamed: boolean): Finding | undefined =>
      this.#try(one, image, sites, own, blamed).findings.find(({ rule }) => rule === found.rule);
    const smaller = (than: ImageCase): ImageCase | undefined => {
      for (const one of shrink(than)) {
        if (sameImage(one, than) && shows(one, false) !== undefined) return one;
      }
      return undefined;
    };
    let smallest = found.case;
    for (let next = smaller(smallest); next !== undefined; next = smaller(smallest)) smallest = next;
    return { ...found, ...shows(smallest, true), case: smallest };
  }
}

/** What can be emitted and not be judged. */
function refuseConfig({ config, flags }: TrampolineRequest): void {
  if (config?.callDepth !== undefined) {
    const why = 'images that count calls cannot be judged at addresses of their own; leave it out';
    throw new InputError('config.callDepth', undefined, why);
  }
  if (config?.cfi !== undefined && (flags & TrampFlag.INDIRECT) !== 0) {
    const why = 'images behind a preamble cannot be judged; leave it out';
    throw new InputError('config.cfi', undefined, why);
  }
}

type Own = Extract<Prepared, { readonly bytes: Uint8Array }>;

interface Sites {
  readonly ipAfterCall: number | null;
  readonly ipEpilogue: number | null;
}

async function openTheatre(
  revision: RevisionName,
  engine: EngineName,
  requests: readonly TrampolineRequest[],
): Promise<Open> {
  const stage = await Stage.open({
    engine,
    revision,
    bugs: new Set(),
    seats: 1,
    units: GivenPlaces.units(requests),
  });
  try {
    return { stage, places: new GivenPlaces(stage, revision, requests), oracle: new Oracle(stage.callers) };
  } catch (error) {
    stage.close();
    throw error;
  }
}

/** What is wrong with the bytes as they lie there. */
function stillWrong({ request, bytes, ipAfterCall, ipEpilogue }: GivenImage): readonly Finding[] {
  const wrong = (detail: string, expected: string, seen: string): Finding[] => [
    { rule: 'length-and-sites', detail, expected, seen },
  ];
  const room = request.imageSize - SAFETY;
  if (bytes.length > room) {
    return wrong('the image is longer than its room', `at most ${room} bytes`, `${bytes.length} bytes`);
  }
  if (ipAfterCall === undefined || ipEpilogue === undefined) return [];
  return sitesWrong(bytes, { ipAfterCall, ipEpilogue }, (request.flags & TrampFlag.CALL_ORIG) !== 0, wrong);
}

/**
 * Whether what stands at an offset of an image can be what stands there in ours: where bytes came in or went away
 * before it, it is another step that happens to begin there.
 */
function standsAsOurs(bytes: Uint8Array, ours: Uint8Array, offset: number): boolean {
  if (bytes.length === ours.length) return true;
  return ours.length >= offset && bytes.subarray(0, offset).every((byte, i) => byte === ours[i]);
}

/** One site cannot be used without the other, and is not left out silently either. */
function refuseOneSite({ ipAfterCall, ipEpilogue }: GivenImage): void {
  if ((ipAfterCall === undefined) === (ipEpilogue === undefined)) return;
  const [missing, given] =
    ipAfterCall === undefined ? ['ipAfterCall', 'ipEpilogue'] : ['ipEpilogue', 'ipAfterCall'];
  const why = `is missing beside ${given}; give both as the image's emitter reported them, or neither`;
  throw new InputError(missing, undefined, why);
}

/** The sites that were reported; else those that our image has, where these can be meant. */
function sitesOf({ bytes, ipAfterCall, ipEpilogue }: GivenImage, own: Own): Sites {
  if (ipAfterCall !== undefined && ipEpilogue !== undefined) return { ipAfterCall, ipEpilogue };
  const calls = own.ipAfterCall !== null;
  const ours = { ipAfterCall: own.ipAfterCall, ipEpilogue: own.ipEpilogue };
  const fits =
    bytes.length === own.bytes.length &&
    sitesWrong(bytes, ours, calls, (detail) => [{ rule: 'length-and-sites', detail }]).length === 0;
  return fits ? ours : { ipAfterCall: null, ipEpilogue: null };
}

/** A request as a case: its programs do nothing in particular. */
export function plainCase(revision: RevisionName, { request, args }: GivenImage): ImageCase {
  const program = ({ sleepable, jited, kind = HelperPair.RECUR, cookie = 0n }: ProgRef): ProgramCase => ({
    sleepable,
    jited,
    kind,
    cookie,
    wantsIp: false,
    running: false,
    returns: 0n,
    writes: null,
    calls: false,
    faults: false,
  });
  const { config } = request;
  const zeros = Array.from({ length: 6 }, () => 0n);
  return {
    revision,
    config: {
      ibt: config?.ibt ?? false,
      rethunk: config?.rethunk ?? false,
      sls: config?.sls ?? false,
      endbr: config?.origCallStartsWithEndbr ?? false,
      callDepth: config?.callDepth !== undefined,
    },
    args: args ?? request.argSizes.map((sizeBytes) => ({ sizeBytes, signed: false })),
    ret: request.retSize === undefined || request.retSize === 0 ? null : { sizeBytes: 8, signed: false },
    flags: request.flags,
    fentry: request.fentry.map(program),
    fmodRet: request.fmodRet.map(program),
    fexit: request.fexit.map(program),
    placing: { offset: Number(request.image % BigInt(PAGE_BYTES)), low: false, room: 'page', far: 'nothing' },
    registers: {
      args: zeros,
      saved: zeros,
      rax: 0n,
      stack: Array.from({ length: STACK_ARG_WORDS }, () => 0n),
      stackWords: 0,
      garbage: 0n,
    },
    returns: { original: 0n, body: 0n },
    statistics: false,
    clock: 1_000_000_000n,
    retired: false,
    watched: false,
  };
}

/** Whether two cases ask for the same image. */
export function sameImage(one: ImageCase, other: ImageCase): boolean {
  const asked = ({
    revision,
    config,
    args,
    flags,
    fentry,
    fmodRet,
    fexit,
    placing,
    ret,
  }: ImageCase): string =>
    JSON.stringify([
      [revision, config, args, flags, placing, ret],
      ...[fentry, fmodRet, fexit].map((programs) =>
        programs.map(({ sleepable, jited, kind, cookie }) => [sleepable, jited, kind, hex64(cookie)]),
      ),
    ]);
  return asked(one) === asked(other);
}
