/* Programs and the original in the wrong order, or run when they should not be. */

import { TrampFlag } from '../request.ts';
import type { Emission } from '../rev/revision.ts';
import type { Label } from '../x86/assembler.ts';
import type { Cond } from '../x86/encoding.ts';
import { Mem, rax } from '../x86/operand.ts';
import {
  all,
  before,
  behind,
  type Change,
  inPiece,
  replacing,
  through,
  withInvocation,
  within,
} from './edit.ts';
import type { EmitterMutant } from './mutant.ts';

const WORD = 8;

/** The programs of a kind, in the order given by `pick`. */
function programs(
  name: 'fentry' | 'fmodRet' | 'fexit',
  pick: <Prog>(progs: readonly Prog[]) => readonly Prog[],
): Change {
  return replacing(name, (emission, _, own) =>
    within(emission, { request: { ...emission.request, [name]: pick(emission.request[name]) } }, own),
  );
}

const reversed = <Prog>(progs: readonly Prog[]): readonly Prog[] => progs.toReversed();
const butLast = <Prog>(progs: readonly Prog[]): readonly Prog[] => progs.slice(0, -1);

const KINDS = ['fentry', 'fmodRet', 'fexit'] as const;

/** The skip of a program whose enter returned 0, under another condition. */
const skipOn = (cond: Cond): Change =>
  inPiece('invokeProg', (asm) => ({ jccShort: (_, target, note) => asm.jccShort(cond, target, note) }));

/** The branch behind each fmod_ret program, under another condition. */
const branchOn = (cond: Cond): Change =>
  inPiece('fmodRet', (asm) => ({ jccNear: (_, target, note) => asm.jccNear(cond, target, note) }));

/** The skip of a program lands behind its exit call. */
const skipBehindExit: Change = replacing('invokeProg', (emission, _, own) => {
  let skip: Label | undefined;
  const keep = (label: Label): void => {
    skip = label;
  };
  through(emission, () => ({ bind: keep }), own);
  if (skip !== undefined) emission.asm.bind(skip);
});

/** fmod_ret branches land elsewhere than before the fexit programs, in images that call the original. */
const landing = (name: 'callOriginal' | 'fexit', where: typeof before): Change => {
  const lands = ({ flags, request }: Emission): boolean =>
    (flags & TrampFlag.CALL_ORIG) !== 0 && request.fmodRet.length > 0;
  return all(
    where(name, (emission) => {
      if (lands(emission)) emission.asm.bind(emission.doFexit);
    }),
    replacing('bindFexit', (emission, _, own) => {
      if (!lands(emission)) own(emission);
    }),
  );
};

export const CONTROL_FLOW_MUTANTS: readonly EmitterMutant[] = [
  {
    id: 'fmod-slot-not-zeroed',
    what: 'the result slot holds what the stack held when no fmod_ret program has run',
    apply: inPiece('fmodRet', (asm) => {
      // The first two instructions of the piece.
      let zeroing = 2;
      const once =
        <Rest extends readonly unknown[]>(emit: (...rest: Rest) => void) =>
        (...rest: Rest): void => {
          if (zeroing-- <= 0) emit(...rest);
        };
      return {
        alu: once((op, dst, src, note) => asm.alu(op, dst, src, note)) as typeof asm.alu,
        mov: once((dst, src, note) => asm.mov(dst, src, note)) as typeof asm.mov,
      };
    }),
  },
  {
    id: 'fmod-slot-half-zeroed',
    what: 'only the lower half of the result slot is zeroed before the first fmod_ret program',
    apply: inPiece('fmodRet', (asm) => {
      let first = true;
      return {
        mov: (dst, src, note) => {
          if (first && dst instanceof Mem) asm.mov(new Mem({ ...dst, size: 4 }), rax.as(4), note);
          else asm.mov(dst, src, note);
          first = false;
        },
      };
    }),
  },
  {
    id: 'fmod-compares-wrong-slot',
    what: 'the word below the result is compared with 0',
    apply: inPiece('fmodRet', (asm) => ({
      aluImm8: (op, dst, value, note) =>
        asm.aluImm8(
          op,
          op === 'cmp' && dst instanceof Mem ? new Mem({ ...dst, disp: dst.disp - WORD }) : dst,
          value,
          note,
        ),
    })),
  },
  {
    id: 'fmod-compares-half',
    what: 'a value with an empty lower half counts as 0',
    apply: inPiece('fmodRet', (asm) => ({
      aluImm8: (op, dst, value, note) =>
        asm.aluImm8(op, op === 'cmp' && dst instanceof Mem ? new Mem({ ...dst, size: 4 }) : dst, value, note),
    })),
  },
  {
    id: 'fmod-compares-with-1',
    what: '1 counts as 0, and 0 as a value',
    apply: inPiece('fmodRet', (asm) => ({
      aluImm8: (op, dst, value, note) => asm.aluImm8(op, dst, op === 'cmp' ? 1 : value, note),
    })),
  },
  { id: 'fmod-je-for-jne', what: 'a value of 0 ends the fmod_ret chain', apply: branchOn('e') },
  { id: 'fmod-jg-for-jne', what: 'negative values do not end the fmod_ret chain', apply: branchOn('g') },
  {
    id: 'fmod-first-value-goes-on',
    what: 'only the last fmod_ret program can end the chain',
    apply: inPiece('fmodRet', (asm, { request }) => {
      let left = request.fmodRet.length;
      return {
        jccNear: (cond, target, note) => {
          if (--left === 0) asm.jccNear(cond, target, note);
        },
      };
    }),
  },
  {
    id: 'fmod-last-value-ignored',
    what: 'what the last fmod_ret program says does not keep the original from running',
    apply: inPiece('fmodRet', (asm, { request }) => {
      let left = request.fmodRet.length;
      return {
        jccNear: (cond, target, note) => {
          if (--left > 0) asm.jccNear(cond, target, note);
        },
      };
    }),
  },
  {
    id: 'fmod-branches-to-original',
    what: 'the fmod_ret branch lands before the original',
    apply: landing('callOriginal', before),
  },
  {
    id: 'fmod-branches-behind-fexit',
    what: 'the fmod_ret branch lands behind the fexit programs',
    apply: landing('fexit', behind),
  },
  {
    id: 'fmod-value-not-kept',
    what: 'what fmod_ret programs return is not stored',
    apply: (revision) => {
      const forgetful = withInvocation((invocation) => ({ ...invocation, keepReturn: false }))(revision);
      return replacing('fmodRet', (emission, _, own) => within(emission, { rev: forgetful }, own))(revision);
    },
  },
  {
    id: 'skip-jne-for-je',
    what: 'programs run when their enter says no, and do not when it says yes',
    apply: skipOn('ne'),
  },
  { id: 'skip-never', what: 'programs run although their enter says no', apply: skipOn('s') },
  { id: 'skip-behind-exit', what: 'a skipped program misses its exit call', apply: skipBehindExit },
  ...KINDS.map((name) => ({
    id: `order-${name}-reversed`,
    what: `${name} programs run in the opposite order`,
    apply: programs(name, reversed),
  })),
  ...KINDS.map((name) => ({
    id: `order-${name}-last-missing`,
    what: `the last ${name} program is left out`,
    apply: programs(name, butLast),
  })),
  {
    id: 'order-fexit-for-fentry',
    what: 'fexit programs run at the entry and fentry programs at the exit',
    apply: (revision) => ({ ...revision, fentry: revision.fexit, fexit: revision.fentry }),
  },
  {
    id: 'order-fexit-before-original',
    what: 'fexit programs run before the original',
    apply: (revision) =>
      all(
        before('callOriginal', (emission) => revision.fexit(emission)),
        replacing('fexit', (emission, _, own) => {
          if ((emission.flags & TrampFlag.CALL_ORIG) === 0) own(emission);
        }),
      )(revision),
  },
  {
    id: 'order-fmod-before-fentry',
    what: 'fmod_ret programs run before the fentry programs',
    apply: (revision) => ({
      ...revision,
      fentry: (emission) => {
        if (emission.request.fmodRet.length > 0) revision.fmodRet(emission);
        else revision.fentry(emission);
      },
      fmodRet: revision.fentry,
    }),
  },
];
