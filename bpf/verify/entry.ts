/*
 * What a program is handed when it attaches to a function, told by the function's type.
 *
 * Kernel: btf_ctx_access, kernel/bpf/btf.c
 */

import { InputError } from '../../lib/index.ts';
import { type Btf, bareType, shown, typeBytes } from '../../obj/index.ts';
import type { BpfProgramKind } from '../model.ts';
import type { BpfEntry, BpfWord } from './environment.ts';
import { pointedStruct } from './struct-walk.ts';

const SCALAR: BpfWord = { kind: 'scalar' };

/**
 * The entry of a program of a kind that attaches to the function `name`, a subprogram's prototype for freplace.
 *
 * @param btf the types that the function is in: the target's, or another object's
 * @throws InputError when there is no such function
 */
export function entryAt(kind: BpfProgramKind, btf: Btf, name: string): BpfEntry {
  if (kind === 'plain') return { kind: 'opaque' };
  const func = btf.types[btf.funcId(name) ?? 0];
  const proto = func?.kind === 'func' ? btf.types[func.type] : undefined;
  if (proto?.kind !== 'func_proto') {
    throw new InputError(btf.file, undefined, `there is no type of a function ${shown(name)}`);
  }
  const args = proto.params.flatMap(({ type }) => wordsOf(btf, type));
  if (kind === 'freplace') return { kind: 'function', params: args };
  const result = bareType(btf, proto.type).type;
  const entry = { kind: 'trampoline', attach: kind, args } as const;
  if (result.kind === 'void' || kind === 'fentry') return { ...entry, result: undefined };
  const returnsBool = result.kind === 'int' && result.bool;
  return { ...entry, result: wordsOf(btf, proto.type)[0] ?? SCALAR, returnsBool };
}

/** The words that an argument takes: structs by value take as many as they fill. */
function wordsOf(btf: Btf, id: number): BpfWord[] {
  const { type } = bareType(btf, id);
  if (type.kind === 'ptr') {
    const struct = pointedStruct(btf, id);
    return [struct === undefined ? SCALAR : { kind: 'struct-pointer', ...struct }];
  }
  const words = Math.ceil((typeBytes(btf, id) ?? 8) / 8);
  return Array.from({ length: Math.max(words, 1) }, () => SCALAR);
}
