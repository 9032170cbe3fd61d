import { InputError } from '../lib/index.ts';
import { type Btf, type BtfMember, bareType, shown, typeBytes } from '../obj/index.ts';
import type { BpfCoreReloc, CoreKind } from './model.ts';

/*
 * The way to a field, in one BTF: from a type through members and array elements. A relocation gives it
 * as numbers (`0:1:2`); what can be found again in another BTF are the names.
 * libbpf: bpf_core_parse_spec, relo_core.c.
 */

/** One step that can be found again: a named member, or an element of an array. */
export interface CoreStep {
  /** The struct whose member it is, or the type of the element; in the step's BTF. */
  readonly type: number;
  /** Of the member, element or enumerator. */
  readonly index: number;
  /** Undefined for an element. */
  readonly name: string | undefined;
}

/** A type, or a field or enumerator of it. */
export interface CoreSpec {
  readonly btf: Btf;
  readonly root: number;
  /** Anonymous members are passed through without a step. Empty for a type as such. */
  readonly steps: readonly CoreStep[];
  /** Of the field from the start of the root. */
  readonly bitOffset: number;
}

/** Kernel: BPF_CORE_SPEC_MAX_LEN. */
export const MAX_STEPS = 64;

export type CoreSubject = 'field' | 'type' | 'enumerator';

/** What a kind of relocation is about. */
export function subjectOf(kind: CoreKind): CoreSubject {
  if (kind.startsWith('field_')) return 'field';
  return kind.startsWith('type_') ? 'type' : 'enumerator';
}

/**
 * A name without its flavor: `task_struct___v5` stands for `task_struct`.
 * libbpf: bpf_core_essential_name_len.
 */
export function essentialName(name: string): string {
  // The last three underscores that stand alone, with something on both sides.
  return /^(.*[^_])___[^_].*$/s.exec(name)?.[1] ?? name;
}

/**
 * The member that ends an enclosing struct as an array without a length may be indexed at will.
 * @param step the step to the array, if it was one to a member
 */
export function isFlexibleArray(btf: Btf, step: CoreStep | undefined, length: number): boolean {
  if (step?.name === undefined || length > 0) return false;
  const struct = btf.types[step.type];
  return (struct?.kind === 'struct' || struct?.kind === 'union') && step.index === struct.members.length - 1;
}

/**
 * Reads the way that a relocation gives.
 *
 * @throws InputError when the object's own types do not have it
 */
export function parseSpec(btf: Btf, reloc: BpfCoreReloc): CoreSpec {
  return new SpecParser(btf, reloc).parse();
}

class SpecParser {
  readonly #btf: Btf;
  readonly #reloc: BpfCoreReloc;
  readonly #steps: CoreStep[] = [];
  #bitOffset = 0;

  constructor(btf: Btf, reloc: BpfCoreReloc) {
    this.#btf = btf;
    this.#reloc = reloc;
  }

  parse(): CoreSpec {
    const { access, kind, type: root } = this.#reloc;
    if (!/^\d+(:\d+)*$/.test(access)) throw this.#error('is no list of numbers with colons between them');
    const indices = access.split(':').map(Number);
    if (indices.length > MAX_STEPS) throw this.#error(`has more than ${MAX_STEPS} numbers`);
    if (this.#btf.types[root] === undefined) throw this.#error(`belongs to type ${root}, which is not there`);
    switch (subjectOf(kind)) {
      case 'type':
        if (access !== '0') throw this.#error('goes into a type that is meant as a whole');
        break;
      case 'enumerator':
        this.#enumerator(root, indices);
        break;
      case 'field':
        this.#field(root, indices);
        break;
    }
    return { btf: this.#btf, root, steps: this.#steps, bitOffset: this.#bitOffset };
  }

  #enumerator(root: number, indices: readonly number[]): void {
    const { id, type } = bareType(this.#btf, root);
    const [index = 0] = indices;
    const value = type.kind === 'enum' || type.kind === 'enum64' ? type.values[index] : undefined;
    if (value === undefined || indices.length > 1) throw this.#error('is no enumerator');
    this.#steps.push({ type: id, index, name: value.name });
  }

  #field(root: number, [first = 0, ...rest]: readonly number[]): void {
    let at = this.#element(root, first);
    for (const index of rest) {
      const { id, type } = bareType(this.#btf, at);
      switch (type.kind) {
        case 'struct':
        case 'union': {
          const member = type.members[index];
          if (member === undefined)
            throw this.#error(`has no member ${index} in ${type.kind} ${shown(type.name)}`);
          this.#member(id, index, member);
          at = member.type;
          break;
        }
        case 'array':
          if (index >= type.length && !isFlexibleArray(this.#btf, this.#steps.at(-1), type.length)) {
            throw this.#error(`reaches element ${index} of ${type.length}`);
          }
          at = this.#element(type.type, index);
          break;
        default:
          throw this.#error(`goes into a type of kind ${type.kind}, which has no parts`);
      }
    }
  }

  #member(struct: number, index: number, { name, bitOffset }: BtfMember): void {
    this.#bitOffset += bitOffset;
    if (name !== '') this.#steps.push({ type: struct, index, name });
  }

  /** The step to an element of this type; also the first step, which treats the root as an array. */
  #element(type: number, index: number): number {
    const { id } = bareType(this.#btf, type);
    const sizeBytes = typeBytes(this.#btf, id);
    if (sizeBytes === undefined) throw this.#error('reaches a type without a size');
    this.#steps.push({ type: id, index, name: undefined });
    this.#bitOffset += index * sizeBytes * 8;
    return id;
  }

  #error(message: string): InputError {
    const what = `the CO-RE access string "${shown(this.#reloc.access)}" of type ${this.#reloc.type}`;
    return new InputError(this.#btf.file, undefined, `${what} ${message}`);
  }
}

/** As C would write it: `struct s.list[2].next`. */
export function describeSpec({ btf, root, steps }: CoreSpec): string {
  const type = btf.types[root];
  const keyword =
    type !== undefined && /^(struct|union|enum)/.test(type.kind) ? `${type.kind.replace('64', '')} ` : '';
  const name = type !== undefined && 'name' in type && type.name !== '' ? type.name : '(anonymous)';
  const path = steps.map(({ name: step, index }, at) =>
    step !== undefined ? `.${step}` : at === 0 && index === 0 ? '' : `[${index}]`,
  );
  return shown(`${keyword}${name}${path.join('')}`);
}
