import type { Target } from './target.ts';

/*
 * A combination: programs, the function they are attached to, and what is done, step by step. The same
 * description is turned into commands for a guest (script.ts) and into a run of our own (emulate.ts).
 */

export const KERNELS = ['6.1', '6.12'] as const;
/** A kernel that Debian builds. */
export type KernelName = (typeof KERNELS)[number];

export type ProgramKind = 'fentry' | 'fexit' | 'fmod_ret' | 'lsm' | 'lsm_cgroup' | 'freplace' | 'struct_ops';

/**
 * A program. Every program records what it sees (recorder.ts): its context's arguments and, where its kind
 * has one, the return value; whether it is called, and when; and what it asks for.
 */
export interface ProgramSpec {
  readonly kind: ProgramKind;
  readonly sleepable?: boolean;
  /** Given when it is attached; asked for by the program when it is here. */
  readonly cookie?: bigint;
  /** Asks for the traced function's address. */
  readonly funcIp?: boolean;
  /** Asks for the number of argument words. */
  readonly argCount?: boolean;
  /** What it returns; 0 when left out. Programs of fentry and fexit return 0. */
  readonly returns?: number;
  /** Of a struct_ops program: which member of the struct it is. */
  readonly member?: string;
  /** Calls the traced function itself before it returns: see Target.recurse. */
  readonly recurses?: boolean;
}

/** What is done, one after the other; programs by their place in the combination. */
export type Step =
  /** Attaches a program; `refused` is the errno when the kernel must not take it. */
  | { readonly do: 'attach'; readonly program: number; readonly refused?: number }
  | { readonly do: 'detach'; readonly program: number }
  /** Looks at the trace site and the image behind it. */
  | { readonly do: 'look' }
  /** Makes the kernel call the function once, and reads what the programs recorded. */
  | { readonly do: 'call' }
  /** Has another task call the function and waits until it sleeps in it. */
  | { readonly do: 'park' }
  /** Looks once more at the image that the last look saw, which may be in use by none but the sleeping task. */
  | { readonly do: 'lookAgain' }
  /** Lets the sleeping task go on, and waits for what its call returns. */
  | { readonly do: 'wake' }
  /** Registers a struct whose members are the programs, and takes it out again. */
  | { readonly do: 'register' | 'unregister' };

export interface Combination {
  readonly name: string;
  readonly target: Target;
  readonly programs: readonly ProgramSpec[];
  readonly steps: readonly Step[];
  /** The kernels that have what it needs. */
  readonly kernels: readonly KernelName[];
}

/** All programs attached in order, one call, all detached again, with looks in between. */
export function usualSteps(programs: readonly ProgramSpec[]): Step[] {
  const each = (verb: 'attach' | 'detach'): Step[] => programs.map((_, program) => ({ do: verb, program }));
  return [
    { do: 'look' },
    ...each('attach'),
    { do: 'look' },
    { do: 'call' },
    ...each('detach'),
    { do: 'look' },
  ];
}
