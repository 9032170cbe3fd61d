/*
 * Families that are small enough to be wrong on purpose: cases are lists of numbers, what is tried is a
 * machine that adds them up. The query of this module's URL says what goes wrong:
 *
 *   odd=N      a term that is a multiple of N breaks the rule `no-multiple`, and with another term `alone`
 *   crash=N, hang=N, throw=N   such a term kills the process, never ends, or throws
 *   differ=N   such a term is another one on each engine
 *   slow=MS    a case takes so long
 *   engineless there is no engine
 */

import { performance } from 'node:perf_hooks';
import process from 'node:process';
import { InputError } from '../../dist/lib/index.js';

const wrong = Object.fromEntries(
  [...new URL(import.meta.url).searchParams].map(([name, value]) => [name, Number(value)]),
);

const hits = (term, name) => wrong[name] !== undefined && term % wrong[name] === 0;

function family(name, { terms }) {
  return {
    name,
    cells: Array.from({ length: terms + 2 }, (_, count) => `${name} of ${count}`),
    generate: (random, { revisions }) => ({
      revision: random.pick(revisions),
      terms: Array.from({ length: random.int(1, terms) }, () => random.int(1, 9999)),
    }),
    *shrink(one) {
      for (const i of one.terms.keys())
        if (one.terms.length > 1) yield { ...one, terms: one.terms.toSpliced(i, 1) };
      for (const [i, term] of one.terms.entries()) {
        for (let less = 1; less < term; less++) yield { ...one, terms: one.terms.with(i, less) };
      }
    },
    describe: ({ revision, terms: list }) => `${revision}: ${list.join(' + ')}`,
    parse: (json) => {
      if (!Array.isArray(json.terms)) throw new InputError('terms', undefined, 'wanted numbers');
      return json;
    },
    open: async ({ engine, bugs = [], observe = false }) => {
      if (wrong.engineless !== undefined) throw new InputError('engine', undefined, 'no engine here');
      return new Runner(name, engine, bugs, observe);
    },
  };
}

class Runner {
  timing = { emit: 0, patch: 0, run: 0, check: 0 };

  constructor(name, engine, bugs, observe) {
    Object.assign(this, { name, engine, bugs, observe });
  }

  async run(cases) {
    return cases.map((one) => this.#outcome(one));
  }

  #outcome({ terms }) {
    for (const term of terms) this.#suffer(term);
    const findings = [];
    const multiples = terms.filter((term) => hits(term, 'odd'));
    if (multiples.length > 0) {
      findings.push({ rule: 'no-multiple', detail: 'a multiple', expected: 'none', seen: `${multiples[0]}` });
      if (terms.length > 1) findings.push({ rule: 'alone', detail: 'a multiple among others' });
    }
    const sum = terms.reduce((total, term) => total + term, 0);
    // The mistake of the mutant L1: it forgets the fourth term. Nothing here is told of it but the machine.
    const machine = terms.filter((_, i) => i !== 3 || !this.bugs.includes('L1')).reduce((a, b) => a + b, 0);
    if (machine !== sum)
      findings.push({ rule: 'sum', detail: 'wrong sum', expected: `${sum}`, seen: `${machine}` });
    const observed = this.observe
      ? { observed: terms.map((term) => (hits(term, 'differ') ? `${term} on ${this.engine}` : `${term}`)) }
      : {};
    return { calls: terms.length, findings, cells: [`${this.name} of ${terms.length}`], ...observed };
  }

  #suffer(term) {
    if (hits(term, 'crash')) process.kill(process.pid, 'SIGKILL');
    if (hits(term, 'throw')) throw new RangeError(`no ${term}`);
    while (hits(term, 'hang'));
    const end = performance.now() + (wrong.slow ?? 0);
    while (performance.now() < end);
    this.timing = { ...this.timing, run: this.timing.run + 1 };
  }

  close() {}
}

export const SUBJECTS = {
  families: { image: family('image', { terms: 6 }), history: family('history', { terms: 40 }) },
  mutants: [
    {
      id: 'forgets',
      what: 'the fourth term is forgotten',
      families: ['image', 'history'],
      revisions: ['v5.13', 'v5.15'],
      suspects: { bugs: ['L1'] },
    },
    {
      id: 'nothing',
      what: 'no mistake at all',
      families: ['image'],
      revisions: ['v5.15'],
      suspects: {},
    },
  ],
};
