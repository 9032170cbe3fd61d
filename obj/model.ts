import { type CFunction, type CType, resolved, spell } from './ctype.ts';

/*
 * The model of a traced function: what a trampoline must know of its prototype to save its arguments
 * and give back its result. Built from BTF (btf.ts) or from C text (prototype.ts).
 */

/** One parameter. Kernel: `struct btf_func_model`, include/linux/bpf.h. */
export interface ArgModel {
  /** As the prototype names it, if it does. */
  readonly name: string | undefined;
  /** As C spells it, e.g. `unsigned long`, `const char *`, `u64`. */
  readonly type: string;
  /** 1, 2, 4 or 8; of a struct 0 to 16. */
  readonly sizeBytes: number;
  /** Integers only: whether the value is sign-extended when it is shown. */
  readonly signed: boolean;
  readonly pointer: boolean;
  /** A struct by value, which v6.1 and later trace. Kernel: BTF_FMODEL_STRUCT_ARG */
  readonly struct?: boolean;
}

/** The result. */
export interface RetModel {
  readonly type: string;
  /** 1, 2, 4 or 8; 0 for void. */
  readonly sizeBytes: number;
  readonly signed: boolean;
  readonly pointer: boolean;
}

/** A function that a trampoline can be made for; with a struct among its arguments, from v6.1 on. */
export interface FuncModel {
  readonly name: string;
  /** At most 12, the kernel's MAX_BPF_FUNC_ARGS; an emitter may take fewer. */
  readonly args: readonly ArgModel[];
  readonly ret: RetModel;
}

/** Kernel: MAX_BPF_FUNC_ARGS, include/linux/bpf.h. */
const MAX_FUNC_ARGS = 12;
/** What two registers hold. Kernel: btf_distill_func_proto (v6.1) */
const MAX_STRUCT_BYTES = 16;

/** What a prototype is refused for: the index of a parameter, the result, or the function as a whole. */
type RefusedPart = number | 'result' | 'function';

/**
 * The model of a prototype.
 *
 * Kernel: btf_distill_func_proto, kernel/bpf/btf.c. Refusing integers of 128 bits is our own rule:
 * no argument slot holds one.
 *
 * @param refuse is called with what is wrong, where; must throw
 */
export function distill(
  name: string,
  proto: CFunction,
  refuse: (part: RefusedPart, reason: string) => never,
): FuncModel {
  if (proto.variadic) {
    refuse('function', 'takes a variable number of arguments (...), which a trampoline cannot save');
  }
  if (proto.params.length > MAX_FUNC_ARGS) {
    refuse('function', `has ${proto.params.length} parameters; a trampoline takes at most ${MAX_FUNC_ARGS}`);
  }
  const args = proto.params.map((param, index): ArgModel => {
    const value = structOf(param.type) ?? scalarOf(param.type);
    if (typeof value === 'string') return refuse(index, `(${spell(param.type)}) is ${value}`);
    return { name: param.name, type: spell(param.type), ...value };
  });
  return { name, args, ret: retModel(proto.ret, refuse) };
}

function retModel(type: CType, refuse: (part: RefusedPart, reason: string) => never): RetModel {
  const text = spell(type);
  if (resolved(type).kind === 'void') return { type: text, sizeBytes: 0, signed: false, pointer: false };
  const scalar = scalarOf(type);
  return typeof scalar === 'string' ? refuse('result', `(${text}) is ${scalar}`) : { type: text, ...scalar };
}

/** A struct that is passed by value, or why it is not; undefined for anything else. */
function structOf(
  type: CType,
): Pick<ArgModel, 'sizeBytes' | 'signed' | 'pointer' | 'struct'> | string | undefined {
  const bare = resolved(type);
  if (bare.kind !== 'struct') return undefined;
  const { sizeBytes } = bare;
  if (sizeBytes === undefined) {
    return 'a struct by value, and its size is not known: write its members, struct s { long a; int b; } x';
  }
  if (sizeBytes === 0) return 'a struct by value without any bytes';
  if (sizeBytes > MAX_STRUCT_BYTES) {
    return `a struct by value of ${sizeBytes} bytes; at most ${MAX_STRUCT_BYTES} are traced`;
  }
  return { sizeBytes, signed: false, pointer: false, struct: true };
}

/** What fits one register, or why the type does not. */
function scalarOf(type: CType): Pick<ArgModel, 'sizeBytes' | 'signed' | 'pointer'> | string {
  const bare = resolved(type);
  switch (bare.kind) {
    case 'int':
    case 'enum': {
      const { sizeBytes, signed } = bare;
      if (sizeBytes === 1 || sizeBytes === 2 || sizeBytes === 4 || sizeBytes === 8) {
        return { sizeBytes, signed, pointer: false };
      }
      return `an integer of ${8 * sizeBytes} bits, which does not fit one register`;
    }
    case 'pointer':
      return { sizeBytes: 8, signed: false, pointer: true };
    case 'float':
      return 'a floating-point number, and a trampoline saves only integer registers';
    case 'struct':
    case 'union':
      return `a ${bare.kind} by value; only integers, pointers and, as arguments, small structs are traced`;
    case 'typedef':
      return `of the unknown type ${bare.name}: write the integer or pointer type it stands for`;
    case 'void':
      return 'void';
    case 'array':
    case 'function':
      return `${bare.kind === 'array' ? 'an array' : 'a function'} by value`;
    default:
      return `of the unknown kind ${bare.kind}`;
  }
}

/** How messages name the refused part of a function. */
export function partName(proto: CFunction, part: RefusedPart): string {
  if (part === 'function') return 'it';
  if (part === 'result') return 'the result';
  const name = proto.params[part]?.name;
  return `parameter ${part + 1}${name === undefined ? '' : ` '${name}'`}`;
}
