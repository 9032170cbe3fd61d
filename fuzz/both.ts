import type { CaseFamily, CaseOutcome, CaseRunner, Finding, RunnerOptions, Timing } from '../check/index.ts';

/** The rule that a case means the same on Unicorn and on the host CPU. */
export const ENGINES_AGREE = 'engines-agree';

/** Opens a runner that runs every case on Unicorn and on the host CPU. Its times are those of both together. */
export async function openBoth<Case>(
  family: CaseFamily<Case>,
  options: Omit<RunnerOptions, 'engine' | 'observe'>,
): Promise<CaseRunner<Case>> {
  const unicorn = await family.open({ ...options, engine: 'unicorn', observe: true });
  try {
    return new Both(unicorn, await family.open({ ...options, engine: 'native', observe: true }));
  } catch (error) {
    unicorn.close();
    throw error;
  }
}

class Both<Case> implements CaseRunner<Case> {
  readonly #unicorn: CaseRunner<Case>;
  readonly #native: CaseRunner<Case>;

  constructor(unicorn: CaseRunner<Case>, native: CaseRunner<Case>) {
    this.#unicorn = unicorn;
    this.#native = native;
  }

  async run(cases: readonly Case[]): Promise<readonly CaseOutcome[]> {
    const [unicorns, natives] = await Promise.all([this.#unicorn.run(cases), this.#native.run(cases)]);
    return unicorns.map((unicorn, i) => compare(unicorn, natives[i] as CaseOutcome));
  }

  get timing(): Timing {
    const [one, other] = [this.#unicorn.timing, this.#native.timing];
    return {
      emit: one.emit + other.emit,
      patch: one.patch + other.patch,
      run: one.run + other.run,
      check: one.check + other.check,
    };
  }

  close(): void {
    this.#unicorn.close();
    this.#native.close();
  }
}

/** What both have to say, each rule once, and the first thing that they did differently. */
function compare(unicorn: CaseOutcome, native: CaseOutcome): CaseOutcome {
  const known = new Set(unicorn.findings.map(({ rule }) => rule));
  const more = native.findings.filter(({ rule }) => !known.has(rule));
  const { calls, cells } = unicorn;
  return { calls, cells, findings: [...unicorn.findings, ...more, ...disagreement(unicorn, native)] };
}

function disagreement(
  { observed: one = [] }: CaseOutcome,
  { observed: other = [] }: CaseOutcome,
): readonly Finding[] {
  const length = Math.max(one.length, other.length);
  for (let i = 0; i < length; i++) {
    if (one[i] === other[i]) continue;
    const expected = one[i] ?? 'nothing more';
    const seen = other[i] ?? 'nothing more';
    const detail = `Unicorn and the host CPU differ in event ${i + 1} of ${length}`;
    return [{ rule: ENGINES_AGREE, detail, expected, seen }];
  }
  return [];
}
