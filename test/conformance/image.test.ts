import { describe, expect, it } from 'vitest';
import type { CombinationAnswers } from '../../conformance/answers.ts';
import { type Combination, KERNELS, type KernelName, usualSteps } from '../../conformance/combination.ts';
import { type BytesVerdict, compareBytes } from '../../conformance/image.ts';
import { fentryTest2 } from '../../conformance/targets.ts';
import type { Kaddr } from '../../lib/index.ts';
import { answersOf, facts, MODEL } from './kernel.ts';

const every: Combination = {
  name: 'every-kind',
  target: fentryTest2,
  programs: [
    { kind: 'fentry', cookie: 5n },
    { kind: 'fentry', sleepable: true },
    { kind: 'fmod_ret' },
    { kind: 'lsm_cgroup' },
    { kind: 'lsm' },
    { kind: 'fexit' },
  ],
  steps: usualSteps(Array.from({ length: 6 }, () => ({ kind: 'fentry' }))),
  kernels: KERNELS,
};

const asleep: Combination = {
  ...every,
  name: 'asleep',
  programs: [{ kind: 'fexit' }],
  steps: [
    { do: 'attach', program: 0 },
    { do: 'look' },
    { do: 'detach', program: 0 },
    { do: 'lookAgain' },
    { do: 'look' },
  ],
};

function compare(combination: Combination, kernel: KernelName, answers: CombinationAnswers): BytesVerdict {
  return compareBytes({
    combination,
    revision: `v${kernel}`,
    facts: facts(kernel),
    model: MODEL,
    models: new Map(),
    answers,
  });
}

describe.each(KERNELS)('bytes of %s', (kernel) => {
  it('are equal where a kernel makes what we make', () => {
    const verdict = compare(every, kernel, answersOf(every, kernel));
    expect(verdict.why).toBeUndefined();
    expect(verdict).toMatchObject({ equal: true, images: 1 });
    expect(compare(asleep, kernel, answersOf(asleep, kernel))).toMatchObject({ equal: true, images: 1 });
  });

  it('differ with any byte of the image', () => {
    const length = compare(every, kernel, answersOf(every, kernel)).length ?? 0;
    expect(length).toBeGreaterThan(300);
    // a prime: from the first byte to the last, through all kinds of instructions
    for (let at = 0; at < length; at = at === length - 1 ? length : Math.min(at + 7, length - 1)) {
      const answers = answersOf(every, kernel);
      const bytes = answers.images.get('s7')?.bytes as Uint8Array;
      bytes[at] = (bytes[at] ?? 0) ^ 0x40;
      expect(compare(every, kernel, answers).equal, `byte ${at}`).toBe(false);
    }
  });

  it('differ with any byte of a trace site, before, while and after', () => {
    for (const tag of ['s0', 's7', 's15']) {
      // what is behind the patched bytes is compared with what it was at the look before
      const patched = kernel === '6.12' ? 9 : 5;
      for (let at = 0; at < (tag === 's0' ? patched : 16); at++) {
        const answers = answersOf(every, kernel);
        const site = answers.sites.get(tag)?.bytes as Uint8Array;
        site[at] = (site[at] ?? 0) ^ 1;
        expect(compare(every, kernel, answers).equal, `${tag}, byte ${at}`).toBe(false);
      }
    }
  });

  it('differ with what the kernel keeps of the image', () => {
    for (const offset of [632, 640, ...(kernel === '6.12' ? [8] : []), 16 + 16 + 20]) {
      const answers = answersOf(every, kernel);
      for (const struct of answers.images.get('s7')?.pointees.values() ?? []) {
        if (struct.length > offset) struct[offset] = (struct[offset] ?? 0) ^ 1;
      }
      expect(compare(every, kernel, answers).equal, `offset ${offset}`).toBe(false);
    }
  });

  it('differ with a retired image that was not made to skip its programs', () => {
    const answers = answersOf(asleep, kernel);
    const image = answers.images.get('s1');
    const again = answers.memory.get('s3');
    if (image == null || again === undefined) throw new Error('nothing was looked at');
    answers.memory.set('s3', { ...again, bytes: image.bytes });
    expect(compare(asleep, kernel, answers)).toMatchObject({
      equal: false,
      why: expect.stringMatching(/^step 4/),
    });
  });

  it('cannot be told where the image names no program or no struct of its own', () => {
    for (const drop of [0, 5, 'im'] as const) {
      const answers = answersOf(every, kernel);
      const pointees = answers.images.get('s7')?.pointees as Map<Kaddr, Uint8Array>;
      const doomed = [...pointees].filter(([, bytes], i) =>
        drop === 'im' ? bytes.length > 128 : i === drop,
      );
      expect(doomed).toHaveLength(1);
      for (const [address] of doomed) pointees.delete(address);
      expect(compare(every, kernel, answers).why).toMatch(/^step 8: the image names no/);
    }
  });

  it('differ where an image is still called that should be gone, or the other way round', () => {
    const still = answersOf(every, kernel);
    still.images.set('s15', still.images.get('s7') ?? null);
    expect(compare(every, kernel, still).why).toBe(
      'step 16: nothing is attached, and the site still calls an image',
    );
    const gone = answersOf(every, kernel);
    gone.images.set('s7', null);
    expect(compare(every, kernel, gone).why).toBe('step 8: the site calls no image');
  });
});
