/*
 * The parts of a traced call that a table shows, in the order in which an image has them. An image says
 * by its own steps which instruction belongs where; what it calls belongs to the part that calls it.
 */

import { type Code, insnAt, type Step } from '../jit/index.ts';

export const COLUMNS = [
  'site',
  'save registers',
  'tramp enter',
  'enter',
  'prog call',
  'exit',
  'fmod_ret',
  'call original',
  'original',
  'restore',
  'tramp exit',
  'epilogue',
] as const;
export type Column = (typeof COLUMNS)[number];

/** What each column holds, for a legend. */
export const LEGEND: Readonly<Record<Column, string>> = {
  site: "the call at the traced function's entry",
  'save registers': 'frame, argument count, function address and argument stores',
  'tramp enter': '__bpf_tramp_enter: a reference on the image',
  enter: 'the enter function of each program',
  'prog call': 'call of each program, and the program itself',
  exit: 'the exit function of each program',
  fmod_ret: 'the zeroed result, compare and branch behind each fmod_ret program',
  'call original': 'argument loads, the call, the stored result, the nop to be patched',
  original: 'the traced function behind its site',
  restore: 'argument loads before returning into the traced function',
  'tramp exit': '__bpf_tramp_exit: the reference given back',
  epilogue: 'result, frame, return',
};

/** By the outermost steps of an image, and by those inside a program block. */
const BY_STEP: Readonly<Record<string, Column>> = {
  prologue: 'save registers',
  nr_regs: 'save registers',
  func_ip: 'save registers',
  save_regs: 'save registers',
  save_args: 'save registers',
  __bpf_tramp_enter: 'tramp enter',
  enter: 'enter',
  run: 'prog call',
  exit: 'exit',
  fmod_ret: 'fmod_ret',
  emit_align: 'fmod_ret',
  call_orig: 'call original',
  restore_regs: 'restore',
  tail_call_ctx: 'restore',
  __bpf_tramp_exit: 'tramp exit',
  epilogue: 'epilogue',
};

/** The column of an instruction of an image. */
export function columnOf(code: Code, offset: number): Column | undefined {
  const path: Step[] = [];
  for (let step = insnAt(code, offset)?.step; step !== undefined; step = step.parent) path.unshift(step);
  const [outermost] = path;
  if (outermost?.name === 'call_orig') return 'call original';
  // A program block stands inside fentry, fmod_ret or fexit: its own steps say more.
  for (const { name } of path.toReversed()) {
    if (name === 'invoke_bpf_prog') return 'enter';
    const column = BY_STEP[name];
    if (column !== undefined) return column;
  }
  return undefined;
}
