/* Requests that an emitter refuses and should not, or takes and should not. */

import { TrampFlag } from '../request.ts';
import type { Refusal } from '../rev/revision.ts';
import type { Change } from './edit.ts';
import type { EmitterMutant } from './mutant.ts';

const { RESTORE_REGS, SKIP_FRAME, RET_FENTRY_RET } = TrampFlag;

/** Refusals other than those that `forget` picks. */
const forgetting =
  (forget: (refusal: Refusal, flags: number) => boolean): Change =>
  (revision) => ({
    ...revision,
    refuse: (request, flags) => {
      const refusal = revision.refuse(request, flags);
      return refusal !== undefined && forget(refusal, flags) ? undefined : refusal;
    },
  });

const holds = (flags: number, both: number): boolean => (flags & both) === both;

export const REFUSAL_MUTANTS: readonly EmitterMutant[] = [
  {
    id: 'T2-emit',
    what: 'a function with as many arguments as registers is refused: >= for >',
    revisions: ['v5.13', 'v5.15'],
    apply: (revision) => ({
      ...revision,
      refuse: (request, flags) =>
        request.argSizes.length >= 6
          ? { code: 'ENOTSUPP', why: `${request.argSizes.length} arguments` }
          : revision.refuse(request, flags),
    }),
  },
  {
    id: 'refuses-too-late',
    what: 'a function with 7 arguments is taken, without its last one',
    revisions: ['v5.13', 'v5.15'],
    apply: (revision) => ({
      ...revision,
      refuse: (request, flags) =>
        revision.refuse({ ...request, argSizes: request.argSizes.slice(0, 6) }, flags),
      saveArgs: (emission) =>
        revision.saveArgs({
          ...emission,
          request: { ...emission.request, argSizes: emission.request.argSizes.slice(0, 6) },
        }),
      restoreArgs: (emission) =>
        revision.restoreArgs({
          ...emission,
          request: { ...emission.request, argSizes: emission.request.argSizes.slice(0, 6) },
        }),
    }),
  },
  {
    id: 'takes-restore-and-skip',
    what: 'RESTORE_REGS together with SKIP_FRAME is taken',
    revisions: ['v5.13', 'v5.15'],
    apply: forgetting(({ code }, flags) => code === 'EINVAL' && holds(flags, RESTORE_REGS | SKIP_FRAME)),
  },
  {
    id: 'takes-ret-fentry-ret-with-others',
    what: 'RET_FENTRY_RET together with other flags is taken',
    revisions: ['v5.15'],
    apply: forgetting(({ code }, flags) => code === 'EINVAL' && holds(flags, RET_FENTRY_RET)),
  },
];
