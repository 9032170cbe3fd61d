/*
 * What lies at an offset of a struct of the kernel's: a pointer to another struct, which is followed on, or
 * something else, which is a number.
 *
 * Kernel: btf_struct_walk, kernel/bpf/btf.c
 */

import { type Btf, bareType, typeBytes } from '../../obj/index.ts';
import type { BpfTypeRef } from './environment.ts';

/** The struct that a type points to, if it is a pointer to one. */
export function pointedStruct(btf: Btf, pointer: number): BpfTypeRef | undefined {
  const { type } = bareType(btf, pointer);
  if (type.kind !== 'ptr') return undefined;
  const target = bareType(btf, type.type);
  return target.type.kind === 'struct' || target.type.kind === 'union' ? { btf, id: target.id } : undefined;
}

export type Member = { readonly kind: 'scalar' } | { readonly kind: 'pointer'; readonly to: BpfTypeRef };

const SCALAR: Member = { kind: 'scalar' };

/** Deepest nesting that is followed; BTF has no cycles of values, and nobody nests deeper. */
const MAX_DEPTH = 32;

/** @returns undefined when the access reaches past the struct's end */
export function memberAt({ btf, id }: BpfTypeRef, off: number, sizeBytes: number): Member | undefined {
  const { type } = bareType(btf, id);
  if (type.kind !== 'struct' && type.kind !== 'union') return undefined;
  if (off < 0) return undefined;
  if (off + sizeBytes > type.sizeBytes) return beyond(btf, id, off) ? SCALAR : undefined;
  return within(btf, id, off, sizeBytes, MAX_DEPTH);
}

/** Behind a struct that ends in an array of no fixed length, there is more of it. */
function beyond(btf: Btf, id: number, off: number): boolean {
  const { type } = bareType(btf, id);
  if (type.kind !== 'struct') return false;
  const last = type.members.at(-1);
  const array = last && bareType(btf, last.type).type;
  return array?.kind === 'array' && array.length === 0 && off >= (last?.bitOffset ?? 0) / 8;
}

function within(btf: Btf, id: number, off: number, sizeBytes: number, depth: number): Member {
  const { type } = bareType(btf, id);
  if (depth === 0) return SCALAR;
  switch (type.kind) {
    case 'ptr': {
      const to = pointedStruct(btf, id);
      return off === 0 && sizeBytes === 8 && to !== undefined ? { kind: 'pointer', to } : SCALAR;
    }
    case 'array': {
      const element = typeBytes(btf, type.type) ?? 0;
      return element === 0 ? SCALAR : within(btf, type.type, off % element, sizeBytes, depth - 1);
    }
    case 'struct':
    case 'union':
      for (const member of type.members) {
        const start = member.bitOffset / 8;
        const bytes = typeBytes(btf, member.type) ?? 0;
        if (member.bitSize !== 0 || off < start || off + sizeBytes > start + bytes) continue;
        const found = within(btf, member.type, off - start, sizeBytes, depth - 1);
        // Of a union's members the first that is a pointer there counts; a struct has one.
        if (type.kind === 'struct' || found.kind === 'pointer') return found;
      }
      return SCALAR;
    default:
      return SCALAR;
  }
}
