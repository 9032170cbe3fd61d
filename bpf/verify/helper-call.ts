/*
 * Calls of helpers: whether there is one, whether its arguments are of the kinds that it takes, what it gives.
 *
 * Kernel: check_helper_call, check_func_arg, check_map_func_compatibility, record_func_key
 */

import { BPF_REG_1 } from '../../jit/index.ts';
import type { BpfMapPlace } from './environment.ts';
import type { Exploration } from './explore.ts';
import { helperName, LAST_HELPER } from './helper-names.ts';
import { HELPERS, Helper, type HelperArg, type HelperProto } from './helpers.ts';
import { checkBounds, checkStackAccess, written } from './memory.ts';
import { constantOf, UNKNOWN, unsignedBits } from './scalar.ts';
import type { ProgramState } from './state.ts';
import { isPointer, NULL, nameOf, type Value } from './value.ts';

export interface HelperOutcome {
  /** In r0 afterwards. */
  readonly result: Value;
  /** A function of the program that it calls. */
  readonly callback: { readonly subprog: number; readonly args: readonly Value[] } | undefined;
}

/** Checks a call and tells what comes of it. @throws InputError */
export function checkHelper(x: Exploration, state: ProgramState, id: number, at: number): HelperOutcome {
  const proto = prototype(x, id, at);
  const call = new HelperCall(x, state, id, at);
  for (const [i, kind] of proto.args.entries()) call.check(i, kind, proto.args[i + 1]);
  if (id === Helper.TAIL_CALL) noteTailCall(x, call, at);
  return { result: call.result(proto), callback: call.callback() };
}

function prototype(x: Exploration, id: number, at: number): HelperProto {
  const { revision, entry, sleepable, helper } = x.env;
  const name = helperName(id);
  const called = `helper ${id}${name === undefined ? '' : ` (${name})`}`;
  if (name === undefined || id > LAST_HELPER[revision]) x.refuse(at, `${called} is unknown to ${revision}`);
  const proto = HELPERS[id];
  const there = id === Helper.TAIL_CALL || helper(id) !== undefined;
  if (proto === undefined || !there) return x.refuse(at, `${called} is not there`);
  if (proto.sleepable === true && !sleepable) x.refuse(at, `${called} is for programs that may sleep`);
  const attach = entry.kind === 'trampoline' ? entry.attach : entry.kind;
  if (proto.attach !== undefined && !proto.attach.includes(attach)) {
    x.refuse(at, `${called} is for ${proto.attach.join(', ')} programs`);
  }
  // Cookies of trampolines came with v5.19; before, the helper is for other programs.
  if (id === Helper.GET_ATTACH_COOKIE && revision.startsWith('v5.')) {
    x.refuse(at, `${called} is not for programs of trampolines in ${revision}`);
  }
  return proto;
}

/** Types of maps, BPF_MAP_TYPE_*, that helpers work on; those not named here take any. */
const KEYED = [1, 2, 5, 6, 9, 10, 11, 12, 13];
const MAP_TYPES: Readonly<Record<number, readonly number[]>> = {
  1: KEYED,
  2: KEYED,
  3: KEYED,
  12: [3],
  22: [4],
  25: [4],
  27: [7],
  55: [4],
  87: [22, 23],
  88: [22, 23],
  89: [22, 23],
  130: [27],
  131: [27],
  134: [27],
  164: [1, 2, 5, 6, 9, 10],
  195: [5, 6, 10],
};

class HelperCall {
  readonly #x: Exploration;
  readonly #state: ProgramState;
  readonly #id: number;
  readonly #at: number;
  readonly #values: Value[] = [];
  map: (Value & { readonly kind: 'map' }) | undefined;

  constructor(x: Exploration, state: ProgramState, id: number, at: number) {
    this.#x = x;
    this.#state = state;
    this.#id = id;
    this.#at = at;
  }

  argument(index: number): Value | undefined {
    return this.#values[index];
  }

  check(index: number, kind: HelperArg, next: HelperArg | undefined): void {
    const value = this.#x.read(this.#state, BPF_REG_1 + index, this.#at);
    this.#values.push(value);
    if (value.kind === 'unknown') return;
    const wrong = this.#wrong(index, value, kind, next);
    if (wrong !== undefined) {
      const name = helperName(this.#id) ?? '';
      this.#x.refuse(this.#at, `r${BPF_REG_1 + index} is ${nameOf(value)}; ${name} wants ${wrong} there`);
    }
  }

  /** What is wanted instead; undefined when it is right. */
  #wrong(index: number, value: Value, kind: HelperArg, next: HelperArg | undefined): string | undefined {
    switch (kind) {
      case 'any':
        return undefined;
      case 'number':
        return value.kind === 'scalar' ? undefined : 'a number';
      case 'bytes':
        return this.#wrongSize(value);
      case 'map':
        return this.#wrongMap(value);
      case 'key':
        return this.#wrongMemory(index, value, this.map?.map.keyBytes, false);
      case 'value?':
        return value.kind === 'scalar' && constantOf(value) === 0n
          ? undefined
          : this.#wrongMemory(index, value, this.#valueBytes(), false);
      case 'value':
        return this.#wrongMemory(index, value, this.#valueBytes(), false);
      case 'value-out':
        return this.#wrongMemory(index, value, this.#valueBytes(), true);
      case 'u64-out':
        return this.#wrongMemory(index, value, 8, true);
      case 'text':
        return this.#wrongMemory(index, value, undefined, false);
      case 'memory?':
      case 'memory-out?':
        if (value.kind === 'scalar' && constantOf(value) === 0n) return undefined;
        return this.#wrongMemory(index, value, this.#sizeAfter(index, next), kind === 'memory-out?');
      case 'memory':
      case 'memory-out':
        return this.#wrongMemory(index, value, this.#sizeAfter(index, next), kind === 'memory-out');
      case 'context':
        return value.kind === 'args' || value.kind === 'context' ? undefined : 'the context';
      case 'function':
        return value.kind === 'function' ? undefined : 'a function of the program';
      case 'stack?': {
        const isNull = value.kind === 'scalar' && constantOf(value) === 0n;
        return isNull || value.kind === 'stack' ? undefined : 'a pointer to the stack, or 0';
      }
      case 'struct':
        return value.kind === 'struct' ? undefined : 'a pointer to a struct of the kernel';
      case 'spin-lock':
        return value.kind === 'map-value' || value.kind === 'global'
          ? undefined
          : 'a bpf_spin_lock in a value of a map';
      case 'record':
        return value.kind === 'memory' && value.from === 'ringbuf' && value.nullable === undefined
          ? undefined
          : 'what bpf_ringbuf_reserve gave, once it is not null,';
    }
  }

  #wrongSize(value: Value): string | undefined {
    if (value.kind !== 'scalar') return 'a number of bytes';
    const one = constantOf(value);
    return one === undefined || BigInt.asIntN(64, one) >= 0n ? undefined : 'a number of bytes';
  }

  #wrongMap(value: Value): string | undefined {
    if (value.kind !== 'map' || value.nullable !== undefined) return 'a map';
    const types = MAP_TYPES[this.#id];
    if (types !== undefined && !types.includes(value.map.typeId)) return 'a map of another type';
    this.map = value;
    return undefined;
  }

  #valueBytes(): number | undefined {
    const { map } = this.map ?? {};
    return map === undefined || isOuter(map) ? undefined : map.valueBytes;
  }

  #sizeAfter(index: number, next: HelperArg | undefined): number | undefined {
    if (next !== 'bytes') return undefined;
    const size = this.#state.frame.registers[BPF_REG_1 + index + 1] as Value;
    const one = size.kind === 'scalar' ? constantOf(size) : undefined;
    return one === undefined || one > 1n << 29n ? undefined : Number(one);
  }

  /** @param sizeBytes undefined when it is not known: then only the kind is checked */
  #wrongMemory(
    index: number,
    value: Value,
    sizeBytes: number | undefined,
    writes: boolean,
  ): string | undefined {
    const wanted = writes ? 'memory to write to' : 'memory';
    if (!isPointer(value) || value.kind === 'args') return wanted;
    // What is trusted, in v6.12, helpers may read as memory.
    if (value.kind === 'struct') return writes || value.probe ? wanted : undefined;
    if ('nullable' in value && value.nullable !== undefined) return `${wanted}, compared with 0 first,`;
    const x = this.#x;
    const bytes = sizeBytes ?? 1;
    if (bytes === 0) return undefined;
    if (writes) {
      const { off } = value;
      // Without a size, all that lies behind the pointer may have changed.
      const all = sizeBytes === undefined && value.kind === 'stack' ? Math.max(1, -off) : bytes;
      written(x, this.#state, value, off, all, undefined, this.#at, `r${BPF_REG_1 + index}`);
      return undefined;
    }
    if (value.kind === 'stack') checkStackAccess(x, this.#state, value, value.off, bytes, this.#at);
    else if (value.kind !== 'context') checkBounds(x, value, value.off, bytes, this.#at);
    return undefined;
  }

  result({ result }: HelperProto): Value {
    const x = this.#x;
    switch (result) {
      case 'number':
        return UNKNOWN;
      case 'value?': {
        const map = this.map?.map;
        if (map === undefined) return UNKNOWN;
        const nullable = x.nullable();
        if (isOuter(map)) {
          const inner =
            map.inner ?? x.refuse(this.#at, `it is not known what the maps in ${map.name} are like`);
          return { kind: 'map', map: inner, index: undefined, nullable };
        }
        return { kind: 'map-value', map, off: 0, loose: false, nullable };
      }
      case 'record?': {
        const size = this.argument(1);
        const bytes = size?.kind === 'scalar' ? constantOf(size) : undefined;
        if (bytes === undefined) return x.refuse(this.#at, 'r2, the size of the record, must be constant');
        const sizeBytes = Number(BigInt.asUintN(32, bytes));
        return { kind: 'memory', sizeBytes, from: 'ringbuf', off: 0, loose: false, nullable: x.nullable() };
      }
      case 'task':
        return currentTask(x);
    }
  }

  /** A function that it calls again and again. */
  callback(): HelperOutcome['callback'] {
    const context = this.argument(2) ?? UNKNOWN;
    const callee = this.argument(1);
    if (callee?.kind !== 'function') return undefined;
    if (this.#id === Helper.LOOP) return { subprog: callee.subprog, args: [unsignedBits(32), context] };
    if (this.#id !== Helper.FOR_EACH_MAP_ELEM || this.map === undefined) return undefined;
    const { map } = this.map;
    const key: Value = {
      kind: 'memory',
      sizeBytes: map.keyBytes,
      from: 'kernel',
      off: 0,
      loose: false,
      nullable: undefined,
    };
    const element: Value = { kind: 'map-value', map, off: 0, loose: false, nullable: undefined };
    return { subprog: callee.subprog, args: [this.map, key, element, context] };
  }
}

/** An array or hash of maps. */
const isOuter = ({ typeId }: BpfMapPlace): boolean => typeId === 12 || typeId === 13;

function currentTask({ env: { kernelBtf, revision } }: Exploration): Value {
  const id =
    kernelBtf?.types.findIndex((type) => type.kind === 'struct' && type.name === 'task_struct') ?? -1;
  if (kernelBtf === undefined || id < 0) return UNKNOWN;
  return { kind: 'struct', type: { btf: kernelBtf, id }, probe: revision !== 'v6.12', off: 0, loose: false };
}

/** A tail call that always takes the same slot of the same map needs no lookup. */
function noteTailCall({ facts }: Exploration, call: HelperCall, at: number): void {
  const index = call.argument(2) ?? NULL;
  const one = index.kind === 'scalar' ? constantOf(index) : undefined;
  const map = call.map?.index;
  const entries = call.map?.map.maxEntries ?? 0;
  const slot = one !== undefined && one < BigInt(entries) ? Number(one) : undefined;
  const before = facts.tailCalls.get(at);
  const same = before === undefined || (before.map === map && before.slot === slot);
  facts.tailCalls.set(at, same ? { map, slot } : { map: undefined, slot: undefined });
}
