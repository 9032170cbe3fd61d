import type { Combination, ProgramSpec, Step } from './combination.ts';

/*
 * Which programs are attached at a step, and in which list of the trampoline each is.
 */

export type List = 'fentry' | 'fmodRet' | 'fexit';

/** The list that a program is in. Kernel: bpf_attach_type_to_tramp, kernel/bpf/trampoline.c */
export function listOf(kind: ProgramSpec['kind'], retBits: number): List | 'replace' {
  switch (kind) {
    case 'fentry':
    case 'fexit':
      return kind;
    case 'fmod_ret':
    case 'lsm_cgroup':
      return 'fmodRet';
    case 'lsm':
      return retBits === 0 ? 'fexit' : 'fmodRet';
    case 'freplace':
      return 'replace';
    case 'struct_ops':
      return 'fentry';
  }
}

/** Programs that are attached before a step, oldest first. */
export function attachedBefore({ steps }: Combination, at: number): number[] {
  const attached: number[] = [];
  for (const step of steps.slice(0, at)) {
    if (step.do === 'attach' && step.refused === undefined) attached.push(step.program);
    if (step.do === 'detach') attached.splice(attached.indexOf(step.program), 1);
  }
  return attached;
}

/** Whether programs came or went between two steps. */
export function changedBetween(steps: readonly Step[], from: number, to: number): boolean {
  return steps
    .slice(from, to)
    .some((step) => step.do === 'detach' || (step.do === 'attach' && step.refused === undefined));
}
