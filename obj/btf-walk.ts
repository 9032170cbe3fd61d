import type { Btf, BtfType } from './btf.ts';

/** Questions about a type that are answered by following others: what it is, and how many bytes it has. */

/** A type and its id. */
export interface TypeAt {
  readonly id: number;
  readonly type: BtfType;
}

/**
 * The type behind qualifiers, typedefs and type tags. An id that is not there gives void.
 * It ends because {@link parseBtf} refuses chains that lead back to themselves.
 *
 * Kernel: btf_type_skip_modifiers, kernel/bpf/btf.c.
 */
export function bareType(btf: Btf, id: number): TypeAt {
  let at = id;
  for (;;) {
    const type = btf.types[at] ?? { kind: 'void' };
    switch (type.kind) {
      case 'typedef':
      case 'type_tag':
      case 'const':
      case 'volatile':
      case 'restrict':
        at = type.type;
        break;
      default:
        return { id: at, type };
    }
  }
}

/** Sizes are 32-bit numbers in BTF. */
const MAX_BYTES = 0xffff_ffff;

/**
 * Bytes of a value of this type, or undefined when it has none (void, a function, a forward
 * declaration) or more than 32 bits can count.
 *
 * Kernel: btf_type_id_size, kernel/bpf/btf.c.
 */
export function typeBytes(btf: Btf, id: number): number | undefined {
  let elements = 1;
  for (let at = id; ; ) {
    const bare = bareType(btf, at).type;
    switch (bare.kind) {
      case 'array':
        elements *= bare.length;
        at = bare.type;
        break;
      case 'var':
        at = bare.type;
        break;
      case 'ptr':
        return within(elements, 8);
      case 'int':
      case 'float':
      case 'enum':
      case 'enum64':
      case 'struct':
      case 'union':
      case 'datasec':
        return within(elements, bare.sizeBytes);
      default:
        return undefined;
    }
  }
}

/** `Infinity` of nested arrays included; an empty array of whatever size is empty. */
function within(elements: number, sizeBytes: number): number | undefined {
  const total = elements * sizeBytes;
  return total <= MAX_BYTES ? total : undefined;
}
