import type { BpfInsn } from '../jit/index.ts';
import { InputError } from '../lib/index.ts';
import { type Btf, shown } from '../obj/index.ts';
import { type CoreBudget, CoreMatcher, sameKind } from './core-match.ts';
import { patchInsn, poison } from './core-patch.ts';
import { type CoreSpec, describeSpec, essentialName, parseSpec } from './core-spec.ts';
import { type CoreAbsence, type CoreValue, coreValue, isAbsence } from './core-value.ts';
import type { BpfCoreReloc, BpfObject, BpfProgram } from './model.ts';

/*
 * CO-RE: "compile once, run everywhere". The object says in terms of its own types which numbers of an
 * instruction depend on types; here they become those of the target.
 *
 *   core-spec.ts    the way to a field, in one BTF
 *   core-match.ts   the same way in the target
 *   core-value.ts   the number that is asked for
 *   core-patch.ts   the number in the instruction
 *
 * What the target does not have poisons the instruction: it becomes a call of helper 0xbad2310. That is
 * no error by itself, since programs ask first whether a field exists and leave such code unreached. The
 * loader refuses the program when it can be reached, and `relocs` tells then what was missing.
 *
 * Kernel: tools/lib/bpf/relo_core.c and libbpf.c (bpf_core_resolve_relo).
 */

/** What became of one relocation. */
export interface CoreOutcome {
  readonly reloc: BpfCoreReloc;
  /** What it is about, as C would write it, e.g. `struct task_struct.pid`. */
  readonly subject: string;
  /** The same in the target, with its flavor; undefined when the target does not have it. */
  readonly found: string | undefined;
  /** The number that the compiler took. */
  readonly local: bigint;
  /** The number now in the instruction; undefined when it is poisoned. */
  readonly value: bigint | undefined;
  /** Why the instruction was poisoned. */
  readonly poisoned: string | undefined;
}

export interface CoreResult {
  readonly insns: readonly BpfInsn[];
  /** One for each of the program's `coreRelocs`, in their order. */
  readonly relocs: readonly CoreOutcome[];
}

/** Steps of comparison for one program: a few milliseconds for real ones. */
const MAX_STEPS = 1_000_000;

/**
 * Applies a program's CO-RE relocations.
 *
 * @param targets the types to relocate against: those of the kernel, and behind them those of modules,
 *   which count only for names that the first does not have
 * @throws InputError when a relocation cannot be read, is ambiguous, or does not fit its instruction
 */
export function relocateCore(object: BpfObject, program: BpfProgram, targets: readonly Btf[]): CoreResult {
  const { btf } = object;
  if (program.coreRelocs.length === 0 || btf === undefined) return { insns: program.insns, relocs: [] };
  const insns = [...program.insns];
  const budget: CoreBudget = { left: MAX_STEPS };
  const relocs = program.coreRelocs.map((reloc): CoreOutcome => {
    const fail = (message: string): never => {
      const line = program.lineInfo.findLast(({ insn }) => insn <= reloc.insn);
      const where = line === undefined ? '' : ` (${shown(line.file)}:${line.line})`;
      const what = `${shown(program.name)}, instruction ${reloc.insn}${where}`;
      throw new InputError(object.file, undefined, `${what}: CO-RE relocation ${reloc.kind} ${message}`);
    };
    const spec = parseSpec(btf, reloc);
    const subject = describeSpec(spec);
    const local = coreValue(reloc.kind, spec);
    if (typeof local === 'string') return fail(`of ${subject}: ${local}`);
    if (isAbsence(local)) return fail(`of ${subject}: ${local.poison}`);
    const found =
      reloc.kind === 'type_id_local'
        ? { spec, value: local }
        : search(btf, spec, reloc, targets, budget, fail);
    const { value } = found;
    const outcome = { reloc, subject, found: found.spec && describeSpec(found.spec), local: local.value };
    const trouble = isAbsence(value) ? value : patchInsn(insns, reloc.insn, local, value);
    if (typeof trouble === 'string') return fail(`of ${subject} is for an instruction ${trouble}`);
    if (trouble !== undefined) {
      poison(insns, reloc.insn);
      return { ...outcome, value: undefined, poisoned: trouble.poison };
    }
    return { ...outcome, value: isAbsence(value) ? undefined : value.value, poisoned: undefined };
  });
  return { insns, relocs };
}

/** The answer of the target: that of every candidate which has what is asked for, and they must agree. */
function search(
  btf: Btf,
  local: CoreSpec,
  { kind }: BpfCoreReloc,
  targets: readonly Btf[],
  budget: CoreBudget,
  fail: (message: string) => never,
): { spec: CoreSpec | undefined; value: CoreValue | CoreAbsence } {
  const root = btf.types[local.root];
  const name = root !== undefined && 'name' in root ? root.name : '';
  if (root === undefined || name === '') return fail('is about a type without a name');
  if (targets.length === 0)
    return fail(`of ${describeSpec(local)} needs the types of the target: compile it with BTF`);
  let answer: { spec: CoreSpec; value: CoreValue | CoreAbsence } | undefined;
  for (const [number, target] of targets.entries()) {
    const candidates = candidatesOf(target, name).filter((id) => sameKind(root, target.types[id] ?? root));
    const matcher = new CoreMatcher(btf, target, budget);
    for (const id of candidates) {
      const spec = matcher.find(local, kind, id);
      if (spec === undefined) continue;
      const value = coreValue(kind, spec);
      if (typeof value === 'string') return fail(`of ${describeSpec(spec)} in the target: ${value}`);
      if (answer === undefined) answer = { spec, value };
      else if (!agree(answer, { spec, value })) {
        return fail(`of ${describeSpec(local)} is ambiguous: the target has it in several types that differ`);
      }
    }
    if (number === 0 && candidates.length > 0) break;
  }
  if (answer !== undefined) return answer;
  const absent = coreValue(kind, undefined);
  return typeof absent === 'string'
    ? fail(`of ${describeSpec(local)}: ${absent}`)
    : { spec: undefined, value: absent };
}

function agree(
  a: { spec: CoreSpec; value: CoreValue | CoreAbsence },
  b: { spec: CoreSpec; value: CoreValue | CoreAbsence },
): boolean {
  if (a.spec.bitOffset !== b.spec.bitOffset || isAbsence(a.value) || isAbsence(b.value)) return false;
  return a.value.value === b.value.value;
}

/** The types of a BTF by name without flavor, listed once for each. */
const INDEX = new WeakMap<Btf, ReadonlyMap<string, readonly number[]>>();

function candidatesOf(btf: Btf, name: string): readonly number[] {
  let index = INDEX.get(btf);
  if (index === undefined) {
    const made = new Map<string, number[]>();
    btf.types.forEach((type, id) => {
      if (!('name' in type) || type.name === '') return;
      const key = essentialName(type.name);
      const list = made.get(key);
      if (list === undefined) made.set(key, [id]);
      else list.push(id);
    });
    index = made;
    INDEX.set(btf, made);
  }
  return index.get(essentialName(name)) ?? [];
}
