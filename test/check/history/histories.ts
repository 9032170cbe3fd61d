/* Histories to start from: one function, one program, nothing that happens by itself. */

import type { FunctionSpec, HistoryCase, ProgramSpec } from '../../../check/index.ts';
import { WEIGHTS } from '../../../tramp/index.ts';

export const FUNCTION: FunctionSpec = {
  place: 'module',
  site: 'ftrace',
  behind: false,
  args: 2,
  isVoid: false,
  slow: true,
  sleeps: true,
  calls: null,
};

export const PROGRAM: ProgramSpec = {
  kind: 'fentry',
  sleepable: false,
  sleeps: false,
  returns: 0,
  asksIp: false,
  asksCookie: false,
  calls: null,
};

export function history(more: Partial<HistoryCase>): HistoryCase {
  return {
    revision: 'v5.15',
    preemption: true,
    cpus: 1,
    schedule: { seed: 1, slice: 24, host: 5, weights: WEIGHTS },
    functions: [FUNCTION],
    programs: [PROGRAM],
    tasks: [],
    operations: [],
    ...more,
  };
}
