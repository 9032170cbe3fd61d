/*
 * Forgeries: images of the kernels' own emitters with one byte changed, and what the judge says of them.
 * Whatever it accepts must have a reason (equivalent.ts); whatever has a reason must be accepted.
 */

import { ImageChecker, Random } from '../../../check/index.ts';
import { disassemble, type RevisionName } from '../../../jit/index.ts';
import { addrAdd } from '../../../lib/index.ts';
import { type TrampolineVector, trampolineVectors } from '../../vectors.ts';
import { type Reason, whyEqual } from './equivalent.ts';

/** What became of a forgery. */
export interface Verdict {
  readonly number: number;
  readonly revision: RevisionName;
  /** Of the vector. */
  readonly id: number;
  readonly offset: number;
  /** The instruction that the byte is in, and what stands there instead. */
  readonly before: string;
  readonly after: string;
  /** The first broken rule; null when accepted. */
  readonly rule: string | null;
  /** Why nobody can see the difference; null when no reason is known. */
  readonly reason: Reason | null;
}

interface Original extends TrampolineVector {
  readonly revision: RevisionName;
  readonly bytes: Uint8Array;
}

const REVISIONS: readonly RevisionName[] = ['v5.13', 'v5.15'];

export class Forger {
  readonly #originals: readonly Original[];
  readonly #checkers: ReadonlyMap<RevisionName, ImageChecker>;

  private constructor(originals: readonly Original[], checkers: ReadonlyMap<RevisionName, ImageChecker>) {
    this.#originals = originals;
    this.#checkers = checkers;
  }

  static async open(): Promise<Forger> {
    const originals = REVISIONS.flatMap((revision) =>
      trampolineVectors(revision).flatMap((vector): Original[] =>
        vector.bytes === undefined ? [] : [{ ...vector, revision, bytes: vector.bytes }],
      ),
    );
    const checkers = new Map<RevisionName, ImageChecker>();
    for (const revision of REVISIONS) {
      const requests = originals.filter((one) => one.revision === revision).map(({ request }) => request);
      checkers.set(revision, await ImageChecker.open(revision, requests));
    }
    return new Forger(originals, checkers);
  }

  close(): void {
    for (const checker of this.#checkers.values()) checker.close();
  }

  /** Makes a forgery by its number and judges it. */
  async judge(seed: number, number: number): Promise<Verdict> {
    const random = new Random(seed, number);
    const original = random.pick(this.#originals);
    const { revision, request, bytes, ipAfterCall, ipEpilogue, id } = original;
    const offset = random.int(0, bytes.length - 1);
    const forged = bytes.with(offset, (bytes[offset] as number) ^ random.int(1, 255));
    const checker = this.#checkers.get(revision) as ImageChecker;
    const report = await checker.check({ request, bytes: forged, ipAfterCall, ipEpilogue }, { quick: true });
    const rows = disassemble(bytes, request.image);
    const row = rows.findLast((candidate) => candidate.offset <= offset);
    const at = row?.offset ?? 0;
    const [instead] = disassemble(forged.subarray(at, at + 15), addrAdd(request.image, at));
    return {
      number,
      revision,
      id,
      offset,
      before: oneLine(row?.text),
      after: oneLine(instead?.text),
      rule: report.findings[0]?.rule ?? null,
      reason: whyEqual({ revision, request, bytes, forged, offset, ipAfterCall, ipEpilogue }) ?? null,
    };
  }
}

function oneLine(text = '(bad)'): string {
  return text.replace(/\s+/g, ' ');
}
