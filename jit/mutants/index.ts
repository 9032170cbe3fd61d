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

export const EMITTER_MUTANTS: readonly EmitterMutant[] = [
  ...REGISTER_MUTANTS,
  ...FRAME_MUTANTS,
  ...CONTEXT_MUTANTS,
  ...CONTROL_FLOW_MUTANTS,
  ...PROTOCOL_MUTANTS,
  ...REFUSAL_MUTANTS,
  ...WORD_MUTANTS,
];
