/*
 * Mistakes that an emitter can make, each as a change of a revision. They exist to see whether a checker
 * finds them; nothing that emits for use imports this folder.
 */

import { CONTEXT_MUTANTS } from './context.ts';
import { CONTROL_FLOW_MUTANTS } from './control-flow.ts';
import { FRAME_MUTANTS } from './frame.ts';
import type { EmitterMutant } from './mutant.ts';
import { PROTOCOL_MUTANTS } from './protocol.ts';
import { REFUSAL_MUTANTS } from './refusals.ts';
import { REGISTER_MUTANTS } from './registers.ts';
import { WORD_MUTANTS } from './words.ts';

export type { Change } from './edit.ts';
export type { EmitterMutant } from './mutant.ts';

/** By what is got wrong. */
export const EMITTER_MUTANT_KINDS: Readonly<Record<string, readonly EmitterMutant[]>> = {
  Registers: REGISTER_MUTANTS,
  'The frame': FRAME_MUTANTS,
  'What programs are shown, and arguments by width': CONTEXT_MUTANTS,
  'Branches and order': CONTROL_FLOW_MUTANTS,
  'What is called, with what, and where': PROTOCOL_MUTANTS,
  Refusals: REFUSAL_MUTANTS,
  'What v6 kernels added': WORD_MUTANTS,
};

export const EMITTER_MUTANTS: readonly EmitterMutant[] = Object.values(EMITTER_MUTANT_KINDS).flat();
