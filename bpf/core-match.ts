import { InputError } from '../lib/index.ts';
import { type Btf, type BtfType, bareType, typeBytes } from '../obj/index.ts';
import {
  type CoreSpec,
  type CoreStep,
  essentialName,
  isFlexibleArray,
  MAX_STEPS,
  subjectOf,
} from './core-spec.ts';
import type { CoreKind } from './model.ts';

/*
 * Finding again in the target's types what the object's types say. Three questions of growing strictness:
 *
 *   fields compatible   may a field of this type be read as one of that type? (sizes may differ)
 *   types compatible    is this the type that was meant? (names were compared already)
 *   types match         has the target all that the object's type has?
 *
 * libbpf: bpf_core_spec_match, __bpf_core_types_are_compat, __bpf_core_types_match, relo_core.c.
 */

/** Steps of comparison that are left: types may branch and share so that there are more paths than atoms. */
export interface CoreBudget {
  left: number;
}

/** How deep types are compared. libbpf: 32. */
const MAX_DEPTH = 32;

/** Whether two types may stand for each other at all. libbpf: btf_kind_core_compat. */
export function sameKind(a: BtfType, b: BtfType): boolean {
  return a.kind === b.kind || (isEnum(a) && isEnum(b));
}

type EnumType = Extract<BtfType, { kind: 'enum' | 'enum64' }>;
type CompositeType = Extract<BtfType, { kind: 'struct' | 'union' }>;

export const isEnum = (type: BtfType): type is EnumType => type.kind === 'enum' || type.kind === 'enum64';
const isComposite = (type: BtfType): type is CompositeType => type.kind === 'struct' || type.kind === 'union';
const nameOf = (type: BtfType): string => ('name' in type ? type.name : '');

/** Compares the types of one object with those of one target. */
export class CoreMatcher {
  readonly #local: Btf;
  readonly #target: Btf;
  readonly #budget: CoreBudget;

  constructor(local: Btf, target: Btf, budget: CoreBudget) {
    this.#local = local;
    this.#target = target;
    this.#budget = budget;
  }

  /** What `local` is in a candidate type of the target, or undefined when it is not there. */
  find(local: CoreSpec, kind: CoreKind, candidate: number): CoreSpec | undefined {
    switch (subjectOf(kind)) {
      case 'type': {
        const found =
          kind === 'type_matches'
            ? this.#typesMatch(local.root, candidate, false, MAX_DEPTH)
            : this.#typesCompatible(local.root, candidate, MAX_DEPTH);
        return found ? { btf: this.#target, root: candidate, steps: [], bitOffset: 0 } : undefined;
      }
      case 'enumerator':
        return this.#enumerator(local, candidate);
      case 'field':
        return this.#field(local, candidate);
    }
  }

  #enumerator(local: CoreSpec, candidate: number): CoreSpec | undefined {
    const { id, type } = bareType(this.#target, candidate);
    const wanted = essentialName(local.steps[0]?.name ?? '');
    if (!isEnum(type)) return undefined;
    const index = type.values.findIndex(({ name }) => essentialName(name) === wanted);
    const value = type.values[index];
    if (value === undefined) return undefined;
    return {
      btf: this.#target,
      root: candidate,
      steps: [{ type: id, index, name: value.name }],
      bitOffset: 0,
    };
  }

  #field(local: CoreSpec, candidate: number): CoreSpec | undefined {
    const steps: CoreStep[] = [];
    let bitOffset = 0;
    let at = candidate;
    for (const [number, step] of local.steps.entries()) {
      if (step.name !== undefined) {
        const found = this.#member(step, at, MAX_STEPS);
        if (found === undefined) return undefined;
        steps.push(found.step);
        bitOffset += found.bitOffset;
        at = found.next;
        continue;
      }
      // The root is the element of an array that only C sees; further ones are arrays in the target too.
      if (number > 0) {
        const { type: array } = bareType(this.#target, at);
        if (array.kind !== 'array') return undefined;
        const inside = step.index < array.length || isFlexibleArray(this.#target, steps.at(-1), array.length);
        if (!inside) return undefined;
        at = array.type;
      }
      const { id } = bareType(this.#target, at);
      const sizeBytes = typeBytes(this.#target, id);
      if (sizeBytes === undefined) return undefined;
      steps.push({ type: id, index: step.index, name: undefined });
      bitOffset += step.index * sizeBytes * 8;
      at = id;
    }
    return { btf: this.#target, root: candidate, steps, bitOffset };
  }

  /** A member by name, in anonymous members too. libbpf: bpf_core_match_member. */
  #member(
    local: CoreStep,
    target: number,
    depth: number,
  ): { step: CoreStep; bitOffset: number; next: number } | undefined {
    this.#spend();
    const wanted = this.#local.types[local.type];
    const type = wanted && isComposite(wanted) ? wanted.members[local.index]?.type : undefined;
    const { id, type: struct } = bareType(this.#target, target);
    if (type === undefined || !isComposite(struct) || depth === 0) return undefined;
    for (const [index, member] of struct.members.entries()) {
      if (member.name === '') {
        const found = this.#member(local, member.type, depth - 1);
        if (found !== undefined) return { ...found, bitOffset: found.bitOffset + member.bitOffset };
      } else if (member.name === local.name) {
        if (!this.#fieldsCompatible(type, member.type)) return undefined;
        const step = { type: id, index, name: member.name };
        return { step, bitOffset: member.bitOffset, next: member.type };
      }
    }
    return undefined;
  }

  /** libbpf: bpf_core_fields_are_compat. */
  #fieldsCompatible(localId: number, targetId: number): boolean {
    let local = bareType(this.#local, localId).type;
    let target = bareType(this.#target, targetId).type;
    while (local.kind === 'array' && target.kind === 'array') {
      this.#spend();
      local = bareType(this.#local, local.type).type;
      target = bareType(this.#target, target.type).type;
    }
    if (isComposite(local) && isComposite(target)) return true;
    if (!sameKind(local, target)) return false;
    switch (local.kind) {
      case 'ptr':
      case 'float':
      case 'int':
        return true;
      case 'fwd':
      case 'enum':
      case 'enum64': {
        const [a, b] = [essentialName(local.name), essentialName(nameOf(target))];
        return a === '' || b === '' || a === b;
      }
      default:
        return false;
    }
  }

  /** libbpf: __bpf_core_types_are_compat. */
  #typesCompatible(localId: number, targetId: number, depth: number): boolean {
    let [a, b] = [localId, targetId];
    for (let left = depth; left > 0; left--) {
      this.#spend();
      const local = bareType(this.#local, a).type;
      const target = bareType(this.#target, b).type;
      if (!sameKind(local, target)) return false;
      if (
        (local.kind === 'ptr' && target.kind === 'ptr') ||
        (local.kind === 'array' && target.kind === 'array')
      ) {
        [a, b] = [local.type, target.type];
        continue;
      }
      if (local.kind === 'func_proto' && target.kind === 'func_proto') {
        if (local.params.length !== target.params.length) return false;
        const compatible = local.params.every(({ type }, i) =>
          this.#typesCompatible(type, target.params[i]?.type ?? 0, left - 1),
        );
        if (!compatible) return false;
        [a, b] = [local.type, target.type];
        continue;
      }
      return ['void', 'int', 'struct', 'union', 'enum', 'enum64', 'fwd'].includes(local.kind);
    }
    throw this.#tooDeep();
  }

  /** libbpf: __bpf_core_types_match. */
  #typesMatch(localId: number, targetId: number, pointer: boolean, depth: number): boolean {
    let [a, b, behindPointer] = [localId, targetId, pointer];
    for (let left = depth; left > 0; left--) {
      this.#spend();
      const local = bareType(this.#local, a).type;
      const target = bareType(this.#target, b).type;
      if (!namesMatch(nameOf(local), nameOf(target))) return false;
      switch (local.kind) {
        case 'void':
          return target.kind === 'void';
        case 'fwd': {
          const union = target.kind === 'fwd' ? target.union : target.kind === 'union';
          const takes = target.kind === 'fwd' || (behindPointer && isComposite(target));
          return takes && local.union === union;
        }
        case 'enum':
        case 'enum64':
          return isEnum(target) && enumsMatch(local, target);
        case 'struct':
        case 'union':
          if (behindPointer) {
            // A struct and a union of one name differ; a forward declaration of either is enough.
            return target.kind === 'fwd'
              ? target.union === (local.kind === 'union')
              : target.kind === local.kind;
          }
          return (
            isComposite(target) &&
            target.kind === local.kind &&
            this.#compositesMatch(local, target, behindPointer, left)
          );
        case 'int':
          return (
            target.kind === 'int' && local.sizeBytes === target.sizeBytes && local.signed === target.signed
          );
        case 'ptr':
          if (target.kind !== 'ptr') return false;
          [a, b, behindPointer] = [local.type, target.type, true];
          continue;
        case 'array':
          if (target.kind !== 'array' || target.length !== local.length) return false;
          [a, b] = [local.type, target.type];
          continue;
        case 'func_proto': {
          if (target.kind !== 'func_proto' || local.params.length !== target.params.length) return false;
          const match = local.params.every(({ type }, i) =>
            this.#typesMatch(type, target.params[i]?.type ?? 0, behindPointer, left - 1),
          );
          if (!match) return false;
          [a, b] = [local.type, target.type];
          continue;
        }
        default:
          return false;
      }
    }
    throw this.#tooDeep();
  }

  /** Every member of the object's type has its like in the target; the target may have more. */
  #compositesMatch(
    local: CompositeType,
    target: CompositeType,
    behindPointer: boolean,
    left: number,
  ): boolean {
    return (
      local.members.length <= target.members.length &&
      local.members.every((member) =>
        target.members.some(
          (other) =>
            namesMatch(member.name, other.name) &&
            this.#typesMatch(member.type, other.type, behindPointer, left - 1),
        ),
      )
    );
  }

  #spend(): void {
    if (--this.#budget.left < 0) {
      throw new InputError(
        this.#local.file,
        undefined,
        'the types take too long to compare with the target for CO-RE',
      );
    }
  }

  #tooDeep(): InputError {
    return new InputError(this.#local.file, undefined, `CO-RE types are nested deeper than ${MAX_DEPTH}`);
  }
}

/** libbpf: bpf_core_names_match. */
function namesMatch(local: string, target: string): boolean {
  return essentialName(local) === essentialName(target);
}

/** libbpf: bpf_core_enums_match. Values may differ; names may not be missing. */
function enumsMatch(local: EnumType, target: EnumType): boolean {
  return (
    local.sizeBytes === target.sizeBytes &&
    local.values.length <= target.values.length &&
    local.values.every(({ name }) => target.values.some((other) => namesMatch(name, other.name)))
  );
}
