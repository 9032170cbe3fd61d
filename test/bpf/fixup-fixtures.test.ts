import { describe, expect, it } from 'vitest';
import { checkProgram, compileProgram } from '../../bpf/index.ts';
import { PLAIN_BPF_JIT_CONFIG } from '../../jit/index.ts';
import { addrAdd, kaddr } from '../../lib/index.ts';
import { EXPECTATIONS } from '../fixtures/bpf/expect.ts';
import { CALL_BASE, loadable } from './fixup-support.ts';
import { BPF_OBJECTS, bpfFixture, targetBtf } from './object-support.ts';

const REVISIONS = ['v5.13', 'v5.15', 'v6.1', 'v6.12'] as const;

/** The first revision that has what an object uses. */
const since = new Map(EXPECTATIONS.flatMap((one) => one.objects.map((object) => [object, one.since])));

describe('programs that clang made of C', () => {
  const target = targetBtf();
  for (const name of BPF_OBJECTS) {
    it(`${name} is let through and compiled by every revision that has its helpers`, () => {
      const object = bpfFixture(name);
      const first = REVISIONS.indexOf(since.get(name) ?? 'v5.13');
      for (const revision of REVISIONS.slice(first)) {
        let room = kaddr(0xffff_ffff_a000_0000n);
        for (const program of object.programs) {
          const { code, env } = loadable(object, program, revision, target);
          const checked = checkProgram(code, env);
          const placed = compileProgram(checked, {
            revision,
            config: { ...PLAIN_BPF_JIT_CONFIG, callBase: CALL_BASE },
            place: (sizeBytes) => {
              const here = room;
              room = addrAdd(room, Math.ceil(sizeBytes / 64) * 64);
              return here;
            },
          });
          expect(placed).toHaveLength(checked.functions.length);
          expect(placed[0]?.name).toBe(program.name);
        }
      }
    });
  }
});
