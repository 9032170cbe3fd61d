/* Every rule is documented, and broken by something that is reported by its name. */

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { IMAGE_FAMILY, IMAGE_RULES, type ImageRule, Random, type Suspects } from '../../check/index.ts';
import {
  type Emission,
  type Piece,
  piece,
  type Revision,
  type RevisionName,
  revisions,
  type TrampolineConfig,
} from '../../jit/index.ts';
import { EMITTER_MUTANTS } from '../../jit/mutants/index.ts';
import { Bug } from '../../lib/index.ts';

const RULES = Object.keys(IMAGE_RULES) as ImageRule[];
/** Where a rule is broken that all revisions have, and where one that came with v6.1 or v6.12. */
const OLD: readonly RevisionName[] = ['v5.13', 'v5.15'];
const V6: readonly RevisionName[] = ['v6.1', 'v6.12'];
const V6_12: readonly RevisionName[] = ['v6.12'];
const SEED = 12;
/** Cases that a rule has to be broken in. */
const MOST = 512;
const PORTION = 32;

/** Emitters with something put in place of their last instruction. */
function ending(...bytes: readonly number[]): Suspects {
  const ret = piece('ret', ({ asm }: Emission) => asm.raw(bytes));
  return changed(OLD, (revision) => ({ ...revision, ret }));
}

function changed(names: readonly RevisionName[], change: (revision: Revision) => Revision): Suspects {
  return { emitters: Object.fromEntries(names.map((name) => [name, change(revisions[name])])) };
}

/** Emitters that believe that the kernel is built otherwise than it is. */
function builtOtherwise(names: readonly RevisionName[], config: TrampolineConfig): Suspects {
  const otherwise =
    (own: Piece): Piece =>
    (emission) =>
      own({ ...emission, config: { ...emission.config, ...config } });
  return changed(names, (revision) => ({
    ...revision,
    prologue: otherwise(revision.prologue),
    ret: otherwise(revision.ret),
  }));
}

function mutant(id: string, names: readonly RevisionName[] = OLD): Suspects {
  const found = EMITTER_MUTANTS.find((candidate) => candidate.id === id);
  if (found === undefined) throw new Bug(`no mutant ${id}`);
  return changed(names, found.apply);
}

const BREAKERS: Readonly<Record<ImageRule, Suspects>> = {
  'args-seen': mutant('context-last-first'),
  'context-in-frame': mutant('program-context-not-passed'),
  'func-ip': mutant('context-ip-less-4'),
  'program-order': mutant('order-fentry-reversed'),
  'program-runs': mutant('skip-jne-for-je'),
  'skipped-runs-nothing': mutant('skip-never'),
  'enter-exit-pair': mutant('helper-exit-missing'),
  'start-time': mutant('start-time-halved'),
  'helper-sleepable': mutant('helper-pair-swapped'),
  'interpreter-insnsi': mutant('program-insnsi-not-passed'),
  'tramp-enter-exit': mutant('tramp-enter-missing'),
  'original-args': mutant('reg-restored-before-tramp-enter'),
  'original-called': mutant('original-behind-its-site'),
  'fmod-ret-slot-zero': mutant('fmod-slot-half-zeroed'),
  'fmod-ret-chain': mutant('fmod-je-for-jne'),
  'fexit-result': mutant('original-result-halved'),
  'return-value': mutant('reg-rax-not-reloaded'),
  'restored-args': mutant('reg-restored-before-programs'),
  'return-place': mutant('frame-skip-missing'),
  'callee-saved': mutant('reg-rbx-not-saved'),
  // ret 8
  rsp: ending(0xc2, 0x08, 0x00),
  'rbp-chain': mutant('frame-original-result-kept-high'),
  'direction-flag': mutant('reg-direction-flag-inside'),
  // pushfq; xor qword ptr [rsp], ID; popfq; ret
  'control-flags': ending(0x9c, 0x48, 0x81, 0x34, 0x24, 0x00, 0x00, 0x20, 0x00, 0x9d, 0xc3),
  'stack-alignment': mutant('frame-word-long'),
  // mov [rsp+0x18], rax; ret
  'writes-outside-frame': ending(0x48, 0x89, 0x44, 0x24, 0x18, 0xc3),
  'writes-below-rsp': mutant('frame-written-before-taken'),
  // xorps xmm0, xmm0; ret
  'foreign-state': ending(0x0f, 0x57, 0xc0, 0xc3),
  'retired-epilogue': mutant('ip-epilogue-behind-exit'),
  // push rcx; ret
  'call-target': ending(0x51, 0xc3),
  // jmp $
  terminates: ending(0xeb, 0xfe),
  // ud2
  'no-fault': ending(0x0f, 0x0b),
  'length-and-sites': mutant('C3'),
  refusal: mutant('takes-restore-and-skip'),
  'recursion-counter': { bugs: ['active-left-up'] },
  statistics: { bugs: ['miss-counted-twice'] },
  'reader-sections': { bugs: ['no-rcu-read-lock'] },
  'image-reference': { bugs: ['ref-not-put'] },
  'arg-count': mutant('C15', V6),
  'run-ctx': mutant('run-ctx-exit-word-up', V6),
  cookie: mutant('run-ctx-cookie-of-first', V6),
  'helper-pair': mutant('pair-plain-for-cgroup', V6),
  'stack-arguments': mutant('words-stack-not-passed', V6_12),
  'tail-call-count': mutant('C11', V6),
  endbr: builtOtherwise(['v6.1'], { ibt: false }),
  'return-hardening': builtOtherwise(V6, { rethunk: false, sls: false }),
  'call-depth': changed(V6_12, (revision) => ({
    ...revision,
    call: ({ asm }, target, name) => asm.call(target, name),
  })),
};

const SINCE: Readonly<Partial<Record<ImageRule, readonly RevisionName[]>>> = {
  'arg-count': V6,
  'run-ctx': V6,
  cookie: V6,
  'helper-pair': V6,
  'stack-arguments': V6_12,
  'tail-call-count': V6,
  endbr: V6,
  'return-hardening': V6,
  'call-depth': V6_12,
};

/** Where something else is wrong as well when this is: what breaks the rule breaks others in other calls. */
const COMPANY: Readonly<Partial<Record<ImageRule, readonly ImageRule[]>>> = {
  'args-seen': ['original-args', 'restored-args'],
  'program-runs': ['skipped-runs-nothing'],
  'skipped-runs-nothing': ['program-runs', 'context-in-frame'],
  'fmod-ret-slot-zero': ['fmod-ret-chain', 'args-seen', 'callee-saved', 'func-ip'],
  'fexit-result': ['return-value'],
  'callee-saved': ['stack-alignment', 'restored-args'],
  rsp: ['callee-saved'],
  'writes-outside-frame': ['callee-saved'],
};

describe('rules', () => {
  test.each(RULES)('%s is broken by something that is reported by its name', async (rule) => {
    const runner = await IMAGE_FAMILY.open({ engine: 'unicorn', ...BREAKERS[rule] });
    const seen = new Set<string>();
    for (let from = 0; from < MOST && !seen.has(rule); from += PORTION) {
      const cases = Array.from({ length: PORTION }, (_, i) =>
        IMAGE_FAMILY.generate(new Random(SEED, from + i), { revisions: SINCE[rule] ?? OLD }),
      );
      for (const { findings } of await runner.run(cases)) {
        for (const finding of findings) seen.add(finding.rule);
      }
    }
    runner.close();
    expect([...seen]).toContain(rule);
    expect([...seen].filter((other) => other !== rule)).toEqual(
      [...seen].filter((other) => COMPANY[rule]?.includes(other as ImageRule)),
    );
  });

  test('docs/rules.md tells each of them in the words of the list', () => {
    const page = readFileSync(new URL('../../docs/rules.md', import.meta.url), 'utf8');
    const rows = [...page.matchAll(/^\| `([a-z-]+)` \| (.+?) \| .+ \|$/gm)].map(([, rule, what]) => [
      rule,
      what,
    ]);
    expect(rows).toEqual(Object.entries(IMAGE_RULES));
  });
});
