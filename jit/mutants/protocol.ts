/* Enter and exit that do not go together, and places that others find by name. */

import { addrAdd, type Kaddr } from '../../lib/index.ts';
import { type ProgRef, TrampFlag } from '../request.ts';
import type { Emission } from '../rev/revision.ts';
import { Mem, type Reg, rax, rbx, rdi, rdx, rsi } from '../x86/operand.ts';
import { OutOfRange } from '../x86/rm.ts';
import { all, before, type Change, inPiece, replacing, withInvocation, within, without } from './edit.ts';
import type { EmitterMutant } from './mutant.ts';

const SITE_BYTES = 5;

/** Calls of helpers, by name. */
function helperCalls(
  change: (emission: Emission, target: Kaddr, name: string) => [Kaddr, string] | undefined,
): Change {
  return inPiece('invokeProg', (asm, emission) => ({
    call: (target, name, note) => {
      const changed = name.startsWith('__bpf_prog_')
        ? change(emission, target, name)
        : ([target, name] as const);
      if (changed !== undefined) asm.call(changed[0], changed[1], note);
    },
  }));
}

/** The other helper of a pair: sleepable for normal and normal for sleepable. */
function otherHelper({ request }: Emission, name: string): [Kaddr, string] | undefined {
  const other = name.includes('_sleepable')
    ? name.replace('_sleepable', '')
    : name.replace(/(enter|exit)/, '$1_sleepable');
  const address = request.helpers[other];
  return address === undefined ? undefined : [address, other];
}

const swapped = (which: RegExp): Change =>
  helperCalls(
    (emission, target, name) =>
      (which.test(name) ? otherHelper(emission, name) : undefined) ?? [target, name],
  );

const left = (which: RegExp): Change =>
  helperCalls((_, target, name) => (which.test(name) ? undefined : [target, name]));

/** A register that is not loaded with the argument it is for. */
const notLoaded = (name: 'trampEnter' | 'trampExit', register: Reg): Change =>
  inPiece(name, (asm) => ({
    movImm64: (dst, value, note) => (dst === register ? undefined : asm.movImm64(dst, value, note)),
    movImm32: (dst, value, note) => (dst.num === register.num ? undefined : asm.movImm32(dst, value, note)),
  }));

/** A place that others find by its offset, reported elsewhere. */
const reported = (place: 'ipAfterCall' | 'ipEpilogue', bytes: number): Change =>
  replacing(place === 'ipAfterCall' ? 'callOriginal' : 'trampExit', (emission, _, own) => {
    own(emission);
    const at = emission[place];
    if (at !== undefined) emission[place] = at + bytes;
  });

const callsOriginal = ({ flags }: Emission): boolean => (flags & TrampFlag.CALL_ORIG) !== 0;

/** Bytes of `mov [rbp-8], rax`. */
const STORE_BYTES = 4;
/** An equally long nop of another form; what patches the place expects the common one. */
const OTHER_NOP5 = [0x66, 0x0f, 0x1f, 0x40, 0x00];

export const PROTOCOL_MUTANTS: readonly EmitterMutant[] = [
  { id: 'tramp-enter-missing', what: '__bpf_tramp_enter is not called', apply: without('trampEnter') },
  {
    id: 'tramp-exit-missing',
    what: '__bpf_tramp_enter is called and __bpf_tramp_exit is not',
    apply: inPiece('trampExit', () => ({ call: () => undefined })),
  },
  {
    id: 'tramp-enter-without-im',
    what: '__bpf_tramp_enter gets whatever rdi holds',
    apply: notLoaded('trampEnter', rdi),
  },
  {
    id: 'tramp-exit-without-im',
    what: '__bpf_tramp_exit gets whatever rdi holds',
    apply: notLoaded('trampExit', rdi),
  },
  {
    id: 'tramp-enter-late',
    what: '__bpf_tramp_enter is called behind the fentry programs',
    apply: (revision) =>
      all(
        without('trampEnter'),
        replacing('fentry', (emission, _, own) => {
          own(emission);
          if (callsOriginal(emission)) revision.trampEnter(emission);
        }),
      )(revision),
  },
  {
    id: 'tramp-exit-before-fexit',
    what: '__bpf_tramp_exit is called before the fexit programs',
    apply: (revision) =>
      all(
        before('fexit', (emission) => {
          if (callsOriginal(emission)) revision.trampExit(emission);
        }),
        without('trampExit'),
      )(revision),
  },
  {
    id: 'helper-pair-swapped',
    what: 'sleepable programs get the normal enter and exit, and the others the sleepable ones',
    apply: swapped(/./),
  },
  { id: 'helper-enter-swapped', what: 'enter is the other kind, exit is right', apply: swapped(/enter/) },
  { id: 'helper-exit-swapped', what: 'exit is the other kind, enter is right', apply: swapped(/exit/) },
  { id: 'helper-exit-missing', what: 'programs are entered and never left', apply: left(/exit/) },
  { id: 'helper-enter-missing', what: 'programs are left and never entered', apply: left(/enter/) },
  {
    id: 'helper-exit-of-first',
    what: 'every exit is told of the first program of its kind',
    apply: (revision) => {
      const exitOfFirst: Change = (own) => {
        let first: ProgRef | undefined;
        return {
          ...own,
          invokeProg: (emission, invocation) => {
            first ??= invocation.prog;
            const told = first.prog;
            let loads = 0;
            const load = inPiece('invokeProg', (asm) => ({
              movImm64: (dst, value, note) =>
                asm.movImm64(
                  dst,
                  dst === rdi && value === invocation.prog.prog && ++loads === 2 ? told : value,
                  note,
                ),
            }));
            load(own).invokeProg(emission, invocation);
          },
        };
      };
      return ['fentry', 'fmodRet', 'fexit'].reduce<typeof revision>(
        (changed, name) =>
          replacing(name as 'fentry', (emission, _, own) =>
            within(emission, { rev: exitOfFirst(revision) }, own),
          )(changed),
        revision,
      );
    },
  },
  {
    id: 'start-time-lost',
    what: 'exit gets whatever rbx held for its start time',
    apply: inPiece('invokeProg', (asm) => ({
      mov: (dst, src, note) => (dst === rbx ? undefined : asm.mov(dst, src, note)),
    })),
  },
  {
    id: 'start-time-not-passed',
    what: 'exit gets whatever rsi holds for its start time',
    apply: inPiece('invokeProg', (asm) => ({
      mov: (dst, src, note) => (dst === rsi ? undefined : asm.mov(dst, src, note)),
    })),
  },
  {
    id: 'start-time-halved',
    what: 'the start time is cut to 32 bits',
    apply: inPiece('invokeProg', (asm) => ({
      mov: (dst, src, note) =>
        dst === rbx && src === rax ? asm.mov(rbx.as(4), rax.as(4), note) : asm.mov(dst, src, note),
    })),
  },
  {
    id: 'program-value-kept-always',
    what: 'what fentry and fexit programs return is stored as well',
    apply: withInvocation((invocation) => ({ ...invocation, keepReturn: true })),
  },
  {
    id: 'program-insnsi-not-passed',
    what: 'the interpreter does not get its instructions',
    apply: inPiece('invokeProg', (asm) => ({
      movImm64: (dst, value, note) => (dst === rsi ? undefined : asm.movImm64(dst, value, note)),
      movImm32: (dst, value, note) => (dst.num === rsi.num ? undefined : asm.movImm32(dst, value, note)),
    })),
  },
  {
    id: 'program-insnsi-third',
    what: 'the interpreter gets its instructions as third argument',
    apply: inPiece('invokeProg', (asm) => ({
      movImm64: (dst, value, note) => asm.movImm64(dst === rsi ? rdx : dst, value, note),
      movImm32: (dst, value, note) => asm.movImm32(dst.num === rsi.num ? rdx.as(4) : dst, value, note),
    })),
  },
  {
    id: 'program-context-not-passed',
    what: 'programs get whatever rdi holds for their context',
    apply: inPiece('invokeProg', () => ({ lea: () => undefined })),
  },
  {
    id: 'original-at-its-site',
    what: 'the original is called at its traced entry',
    apply: inPiece('callOriginal', (asm, { request }) => ({
      call: (_, name, note) => asm.call(request.origCall, name, note),
    })),
  },
  {
    id: 'original-behind-its-site',
    what: 'the original is called 5 bytes in even where it is not traced there',
    apply: inPiece('callOriginal', (asm, { request }) => ({
      call: (_, name, note) => asm.call(addrAdd(request.origCall, SITE_BYTES), name, note),
    })),
  },
  {
    id: 'original-result-not-kept',
    what: 'what the original returned is not stored',
    apply: inPiece('callOriginal', (asm) => ({
      mov: (dst, src, note) => (src === rax ? undefined : asm.mov(dst, src, note)),
    })),
  },
  {
    id: 'original-result-halved',
    what: 'only the lower half of what the original returned is stored',
    apply: inPiece('callOriginal', (asm) => ({
      mov: (dst, src, note) => {
        if (src === rax && dst instanceof Mem) asm.mov(new Mem({ ...dst, size: 4 }), rax.as(4), note);
        else asm.mov(dst, src, note);
      },
    })),
  },
  {
    id: 'ip-after-call-early',
    what: 'ip_after_call is the store of the result, before the nop',
    apply: reported('ipAfterCall', -STORE_BYTES),
  },
  {
    id: 'ip-after-call-late',
    what: 'ip_after_call is what follows the nop',
    apply: reported('ipAfterCall', SITE_BYTES),
  },
  { id: 'ip-epilogue-late', what: 'ip_epilogue is behind the load of im', apply: reported('ipEpilogue', 10) },
  {
    id: 'ip-epilogue-before-fexit',
    what: 'ip_epilogue is before the fexit programs',
    apply: all(
      before('fexit', (emission) => {
        emission.ipEpilogue = emission.asm.offset;
      }),
      replacing('trampExit', (emission, _, own) => {
        const early = emission.ipEpilogue;
        own(emission);
        emission.ipEpilogue = early;
      }),
    ),
  },
  {
    id: 'ip-epilogue-behind-exit',
    what: 'ip_epilogue is behind __bpf_tramp_exit',
    apply: replacing('trampExit', (emission, _, own) => {
      own(emission);
      emission.ipEpilogue = emission.asm.offset;
    }),
  },
  {
    id: 'C3',
    what: 'the nop at ip_after_call is not the one that a text poke expects',
    apply: inPiece('callOriginal', (asm) => ({ raw: (_, note) => asm.raw(OTHER_NOP5, note) })),
  },
  {
    id: 'C3-missing',
    what: 'there is no nop at ip_after_call',
    apply: inPiece('callOriginal', () => ({ raw: () => undefined })),
  },
  {
    id: 'C7',
    what: 'a call distance that does not fit is cut to 32 bits and accepted',
    apply: (revision) =>
      ['trampEnter', 'callOriginal', 'trampExit', 'invokeProg'].reduce(
        (changed, name) =>
          inPiece(name as 'trampEnter', (asm) => ({
            call: (target, symbol, note) => {
              try {
                asm.call(target, symbol, note);
              } catch (error) {
                if (!(error instanceof OutOfRange)) throw error;
                asm.raw([0xe8, 0x00, 0x00, 0x00, 0x00], note);
              }
            },
          }))(changed),
        revision,
      ),
  },
];
