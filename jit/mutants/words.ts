/*
 * What v6 kernels added, done wrongly: arguments in words, some of them on the stack; the count; run_ctx;
 * pairs by kind; ENDBR; tail call counts; accounting before calls.
 */

import { addrAdd } from '../../lib/index.ts';
import { ENDBR_BYTES } from '../endbr.ts';
import { HelperPair, TrampFlag } from '../request.ts';
import type { Emission, RevisionName } from '../rev/revision.ts';
import { Mem, type Reg, rax, rbp, rdi, rdx, rsi, rsp } from '../x86/operand.ts';
import { all, type Change, inPiece, replacing, through, within, without } from './edit.ts';
import type { EmitterMutant } from './mutant.ts';

const WORD = 8;

const SINCE_6_1: readonly RevisionName[] = ['v6.1', 'v6.12'];
const SINCE_6_12: readonly RevisionName[] = ['v6.12'];

/** Every argument one word, whatever its size. */
const oneWordEach = (argSizes: readonly number[]): number[] => argSizes.map((size) => Math.min(size, WORD));

const isSlot = (operand: Reg | Mem, slot: Mem | undefined): boolean =>
  slot !== undefined && operand instanceof Mem && operand.base === slot.base && operand.disp === slot.disp;

/** Words read from the caller's stack. */
const isCallerStack = (src: Reg | Mem): src is Mem =>
  src instanceof Mem && src.base === rbp && src.disp > 2 * WORD;

const shifted = (mem: Mem, words: number): Mem => new Mem({ ...mem, disp: mem.disp + WORD * words });

/** The caller's stack words, taken from elsewhere. */
const stackWordsFrom = (name: 'saveArgs' | 'passArgs', words: number): Change =>
  inPiece(name, (asm) => ({
    mov: (dst, src, note) => asm.mov(dst, isCallerStack(src) ? shifted(src, words) : src, note),
  }));

const startsWithEndbr = ({ config }: Emission): boolean =>
  config.ibt === true && config.origCallStartsWithEndbr === true;

/** The original, elsewhere than it is. */
const originalMoved = (name: 'funcIp' | 'callTraced', bytes: (emission: Emission) => number): Change =>
  replacing(name, (emission, _, own) => {
    const { request } = emission;
    within(emission, { request: { ...request, origCall: addrAdd(request.origCall, bytes(emission)) } }, own);
  });

/** Another kind of helper pair than the program's own. */
const pairOf =
  (kind: HelperPair, taken: HelperPair): Change =>
  (revision) => ({
    ...revision,
    invokeProg: (emission, invocation) => {
      const { prog } = invocation;
      const wrong = (prog.kind ?? HelperPair.RECUR) === kind ? { ...prog, kind: taken } : prog;
      revision.invokeProg(emission, { ...invocation, prog: wrong });
    },
  });

export const WORD_MUTANTS: readonly EmitterMutant[] = [
  {
    id: 'C1',
    what: 'a struct of 16 bytes is counted as one register',
    revisions: SINCE_6_1,
    apply: (revision) => ({
      ...revision,
      frame: (request, flags) =>
        revision.frame({ ...request, argSizes: oneWordEach(request.argSizes) }, flags),
    }),
  },
  {
    id: 'C6',
    what: 'call distances are worked out before bytes are put ahead of the call',
    revisions: SINCE_6_12,
    apply: (revision) => ({
      ...revision,
      call: (emission, target, name) => {
        const start = emission.asm.offset;
        through(
          emission,
          (asm) => ({ call: (to, symbol, note) => asm.call(addrAdd(to, asm.offset - start), symbol, note) }),
          (edited) => revision.call(edited, target, name),
        );
      },
    }),
  },
  {
    id: 'C6-endbr',
    what: 'call distances are worked out without the ENDBR ahead of the image',
    revisions: ['v6.1'],
    apply: (revision) => ({
      ...revision,
      call: (emission, target, name) =>
        revision.call(emission, addrAdd(target, emission.config.ibt === true ? ENDBR_BYTES : 0), name),
    }),
  },
  {
    id: 'C9',
    what: 'the ENDBR before the site of the original is not skipped',
    revisions: SINCE_6_1,
    apply: originalMoved('callTraced', (emission) =>
      startsWithEndbr(emission) && (emission.flags & TrampFlag.SKIP_FRAME) !== 0 ? -ENDBR_BYTES : 0,
    ),
  },
  {
    id: 'C10',
    what: 'programs get the address behind the ENDBR for the address of the function',
    revisions: SINCE_6_1,
    apply: originalMoved('funcIp', (emission) => (startsWithEndbr(emission) ? ENDBR_BYTES : 0)),
  },
  {
    id: 'C11',
    what: 'the tail call count does not reach the original',
    revisions: SINCE_6_1,
    apply: inPiece('passArgs', (asm, { frame }) => ({
      mov: (dst, src, note) => (isSlot(src, frame.tailCall) ? undefined : asm.mov(dst, src, note)),
    })),
  },
  {
    id: 'C11-returning',
    what: 'the tail call count does not reach the traced function that the image returns into',
    revisions: SINCE_6_1,
    apply: without('tailCallOnly'),
  },
  {
    id: 'C12',
    what: 'stack arguments are looked for without the return address that the call of the image pushed',
    revisions: SINCE_6_12,
    apply: all(stackWordsFrom('saveArgs', -1), stackWordsFrom('passArgs', -1)),
  },
  {
    id: 'C12-programs',
    what: 'programs are shown the stack argument behind the one that is meant',
    revisions: SINCE_6_12,
    apply: stackWordsFrom('saveArgs', 1),
  },
  {
    id: 'C12-original',
    what: 'the original is passed the stack argument behind the one that is meant',
    revisions: SINCE_6_12,
    apply: stackWordsFrom('passArgs', 1),
  },
  {
    id: 'C12-alignment',
    what: 'the stack of an original with stack arguments is off 16 bytes',
    revisions: SINCE_6_12,
    apply: (revision) => ({
      ...revision,
      frame: (request, flags) => {
        const frame = revision.frame(request, flags);
        const passes = frame.stackWords.length > 0 && (flags & TrampFlag.CALL_ORIG) !== 0;
        return passes ? { ...frame, size: frame.size + WORD } : frame;
      },
    }),
  },
  {
    id: 'C15',
    what: 'the count is stored in half a word, and read as a whole one',
    revisions: SINCE_6_1,
    apply: inPiece('argCount', (asm) => ({
      mov: (dst, src, note) => {
        if (dst instanceof Mem && src === rax) asm.mov(new Mem({ ...dst, size: 4 }), rax.as(4), note);
        else asm.mov(dst, src, note);
      },
    })),
  },
  {
    id: 'words-count-missing',
    what: 'the count is never stored',
    revisions: SINCE_6_1,
    apply: inPiece('argCount', () => ({ mov: () => undefined })),
  },
  {
    id: 'words-count-of-arguments',
    what: 'the count is that of arguments, not of words',
    revisions: SINCE_6_1,
    apply: replacing('argCount', (emission, _, own) => {
      const { frame, request } = emission;
      within(emission, { frame: { ...frame, words: frame.words.slice(0, request.argSizes.length) } }, own);
    }),
  },
  {
    id: 'words-stack-not-passed',
    what: 'the original finds no stack arguments',
    revisions: SINCE_6_12,
    apply: replacing('passArgs', (emission, _, own) => {
      within(emission, { frame: { ...emission.frame, stackWords: [] } }, own);
    }),
  },
  {
    id: 'words-stack-one-slot',
    what: 'all stack arguments are passed in the first slot',
    revisions: SINCE_6_12,
    apply: inPiece('passArgs', (asm, { frame }) => ({
      mov: (dst, src, note) => {
        const passed = dst instanceof Mem && dst.base === rbp && src === rax;
        asm.mov(passed ? new Mem({ ...dst, disp: -frame.size }) : dst, src, note);
      },
    })),
  },
  {
    id: 'run-ctx-cookie-missing',
    what: 'the cookie is not stored',
    revisions: SINCE_6_1,
    apply: inPiece('enterProg', (asm) => ({
      mov: (dst, src, note) => (dst instanceof Mem && src === rdi ? undefined : asm.mov(dst, src, note)),
    })),
  },
  {
    id: 'run-ctx-cookie-of-first',
    what: 'every program gets the cookie of the first one of its kind',
    revisions: SINCE_6_1,
    apply: (revision) =>
      (['fentry', 'fmodRet', 'fexit'] as const).reduce(
        (changed, name) =>
          replacing(name, (emission, _, own) => {
            const cookie = emission.request[name][0]?.cookie ?? 0n;
            const progs = emission.request[name].map((prog) => ({ ...prog, cookie }));
            within(emission, { request: { ...emission.request, [name]: progs } }, own);
          })(changed),
        revision,
      ),
  },
  {
    id: 'run-ctx-enter-word-up',
    what: 'enter gets a run_ctx one word up',
    revisions: SINCE_6_1,
    apply: inPiece('enterProg', (asm) => ({
      lea: (dst, src, note) => asm.lea(dst, dst === rsi ? shifted(src, 1) : src, note),
    })),
  },
  {
    id: 'run-ctx-exit-word-up',
    what: 'exit gets a run_ctx one word up',
    revisions: SINCE_6_1,
    apply: inPiece('exitProg', (asm) => ({
      lea: (dst, src, note) => asm.lea(dst, dst === rdx ? shifted(src, 1) : src, note),
    })),
  },
  {
    id: 'pair-plain-for-recur',
    what: 'programs that must not recur get the plain pair',
    revisions: SINCE_6_1,
    apply: pairOf(HelperPair.RECUR, HelperPair.PLAIN),
  },
  {
    id: 'pair-recur-for-plain',
    what: 'programs that may nest get the pair that counts them',
    revisions: SINCE_6_1,
    apply: pairOf(HelperPair.PLAIN, HelperPair.RECUR),
  },
  {
    id: 'pair-plain-for-cgroup',
    what: 'cgroup LSM programs get the plain pair',
    revisions: SINCE_6_1,
    apply: pairOf(HelperPair.LSM_CGROUP, HelperPair.PLAIN),
  },
  {
    id: 'orig-stack-ignored',
    what: 'the original is called by its address although somebody else decides what runs next',
    revisions: SINCE_6_1,
    apply: replacing('callTraced', (emission, _, own) =>
      within(emission, { flags: emission.flags & ~TrampFlag.ORIG_STACK }, own),
    ),
  },
  {
    id: 'tail-call-pushed-twice',
    what: 'the tail call count is pushed twice: what lies below it is a word off',
    revisions: ['v6.1'],
    apply: inPiece('prologue', (asm) => ({
      push: (reg, note) => {
        asm.push(reg, note);
        if (reg === rax) asm.aluImm8('sub', rsp, WORD);
      },
    })),
  },
];
