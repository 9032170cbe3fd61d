import { expect, it } from 'vitest';
import { type BpfCode, type BpfEnvironment, checkProgram, compileProgram } from '../../bpf/index.ts';
import { Random } from '../../check/random.ts';
import { type BpfInsn, decodeInsns, encodeInsns, PLAIN_BPF_JIT_CONFIG } from '../../jit/index.ts';
import { addrAdd, InputError, kaddr } from '../../lib/index.ts';
import { CALL_BASE, loadable } from './fixup-support.ts';
import { BPF_OBJECTS, bpfFixture, targetBtf } from './object-support.ts';

/* Damaged programs: each is refused in one line, or checked, and then the JIT takes it. */

const CASES = 1500;

function programs(): { readonly code: BpfCode; readonly env: BpfEnvironment }[] {
  const target = targetBtf();
  return BPF_OBJECTS.flatMap((name) => {
    const object = bpfFixture(name);
    return object.programs.map((program) => loadable(object, program, 'v6.12', target));
  });
}

/** Some bits turned over, or some instructions of one program in another's place. */
function damaged(random: Random, { insns }: BpfCode, other: BpfCode): BpfInsn[] {
  if (random.once(3)) {
    const done = [...insns];
    for (let i = random.int(1, 4); i > 0; i--) {
      done[random.int(0, done.length - 1)] = random.pick(other.insns);
    }
    return done;
  }
  const bytes = encodeInsns(insns);
  for (let i = random.int(1, 4); i > 0; i--) {
    const at = random.int(0, bytes.length - 1);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << random.int(0, 7));
  }
  return decodeInsns(bytes);
}

it('damaged programs are refused in one line, or checked and compiled', () => {
  const all = programs();
  let refused = 0;
  for (let number = 0; number < CASES; number++) {
    const random = new Random(0xbad, number);
    const { code, env } = random.pick(all);
    const insns = damaged(random, code, random.pick(all).code);
    try {
      const checked = checkProgram({ ...code, insns }, env);
      let at = kaddr(0xffff_ffff_a000_0000n);
      compileProgram(checked, {
        revision: 'v6.12',
        config: { ...PLAIN_BPF_JIT_CONFIG, callBase: CALL_BASE },
        place: (sizeBytes) => {
          const here = at;
          at = addrAdd(at, Math.ceil(sizeBytes / 16) * 16);
          return here;
        },
      });
    } catch (error) {
      if (!(error instanceof InputError)) throw new Error(`case ${number}`, { cause: error });
      expect(error.message).toMatch(/^\S+ instruction \d+\b[^\n]*$/);
      refused++;
    }
  }
  // Both happen, often.
  expect(refused).toBeGreaterThan(CASES / 4);
  expect(refused).toBeLessThan(CASES);
});
