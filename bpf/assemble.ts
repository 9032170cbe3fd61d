import { type BpfInsn, isLdImm64 } from '../jit/index.ts';
import { InputError } from '../lib/index.ts';
import { shown } from '../obj/index.ts';
import type { Externs } from './externs.ts';
import { MAX_INSNS, type SourceFunction } from './functions.ts';
import type {
  BpfCoreReloc,
  BpfFuncInfo,
  BpfLineInfo,
  BpfProgram,
  BpfReference,
  BpfSubprog,
} from './model.ts';
import { markedSlots, type SourceReference } from './references.ts';

/*
 * A program with its subprograms behind it. A callee is appended when the first call of it is met, and
 * its own calls are followed before those that come later in its caller:
 *
 *   main: call a, call b      a: call c       ->   main a c b
 *
 * libbpf: bpf_object__relocate_calls, bpf_object__append_subprog_code.
 */

/** Counts the instructions of all programs together: many programs may share the same long subprograms. */
export interface InsnBudget {
  left: number;
}

type Assembled = Pick<
  BpfProgram,
  'insns' | 'subprogs' | 'references' | 'coreRelocs' | 'lineInfo' | 'funcInfo'
>;

/**
 * Puts a program together.
 *
 * @param references of every function, see `readReferences`
 * @throws InputError when the budget is used up
 */
export function assembleProgram(
  file: string,
  main: SourceFunction,
  references: ReadonlyMap<SourceFunction, readonly SourceReference[]>,
  externs: Externs,
  budget: InsnBudget,
): Assembled {
  const placed = placeFunctions(file, main, references, budget);
  const insns: BpfInsn[] = [];
  const subprogs: BpfSubprog[] = [];
  const found: BpfReference[] = [];
  const coreRelocs: BpfCoreReloc[] = [];
  const lineInfo: BpfLineInfo[] = [];
  const funcInfo: BpfFuncInfo[] = [];
  for (const [one, { start }] of placed) {
    const { name, global, type, lines, cores } = one;
    for (const insn of one.insns) insns.push(insn);
    subprogs.push({ start, length: one.insns.length, name, global, type });
    if (type !== undefined) funcInfo.push({ insn: start, type });
    for (const line of lines) lineInfo.push({ ...line, insn: start + line.insn });
    for (const core of cores) coreRelocs.push({ ...core, insn: start + core.insn });
    for (const reference of references.get(one) ?? []) {
      found.push(applyReference(insns, reference, start, placed, externs));
    }
  }
  return { insns, subprogs, references: found, coreRelocs, lineInfo, funcInfo };
}

/** Where a function stands in the program, by slot and by number. */
interface Placed {
  readonly start: number;
  readonly subprog: number;
}

/** The functions of a program in the order in which libbpf appends them. */
function placeFunctions(
  file: string,
  main: SourceFunction,
  references: ReadonlyMap<SourceFunction, readonly SourceReference[]>,
  budget: InsnBudget,
): Map<SourceFunction, Placed> {
  const placed = new Map<SourceFunction, Placed>();
  const open: { readonly rest: readonly SourceReference[]; next: number }[] = [];
  let end = 0;
  const place = (one: SourceFunction): void => {
    placed.set(one, { start: end, subprog: placed.size });
    end += one.insns.length;
    budget.left -= one.insns.length;
    if (budget.left < 0) {
      throw new InputError(
        file,
        undefined,
        `${shown(main.name)}: the programs with their subprograms have more than ${MAX_INSNS} instructions`,
      );
    }
    open.push({ rest: references.get(one) ?? [], next: 0 });
  };
  // Calls may nest as deep as the file has functions, so this is no recursion.
  place(main);
  for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
    const reference = top.rest[top.next++];
    if (reference === undefined) open.pop();
    else if ('callee' in reference && !placed.has(reference.callee)) place(reference.callee);
  }
  return placed;
}

/** Marks the slots of one reference; gives it with its place in the program. */
function applyReference(
  insns: BpfInsn[],
  reference: SourceReference,
  start: number,
  placed: ReadonlyMap<SourceFunction, Placed>,
  externs: Externs,
): BpfReference {
  const insn = start + reference.insn;
  const first = insns[insn] as BpfInsn;
  const callee = 'callee' in reference ? placed.get(reference.callee) : undefined;
  const { src, imm, second } = markedSlots(reference, first, externs, (callee?.start ?? 0) - insn - 1);
  insns[insn] = { ...first, src, imm };
  if (second !== undefined && isLdImm64(first))
    insns[insn + 1] = { ...(insns[insn + 1] as BpfInsn), imm: second };
  if ('callee' in reference) return { insn, kind: reference.kind, subprog: callee?.subprog ?? 0 };
  return { ...reference, insn };
}
