/*
 * Type information for a program that is itself traced: the verifier takes it as the prototypes of the
 * program's functions. Written byte by byte: there are six types.
 *
 * Kernel: Documentation/bpf/btf.rst
 */

const MAGIC = 0xeb9f;
const HEADER_BYTES = 24;

const KIND = { int: 1, ptr: 2, struct: 4, func: 12, func_proto: 13 } as const;
const SIGNED = 1 << 24;
const LINKAGE_GLOBAL = 1;

const FUNCTIONS = ['main', 'sub'] as const;
type FunctionName = (typeof FUNCTIONS)[number];

export interface ProgramBtf {
  readonly bytes: Uint8Array;
  /** Type number of each function. */
  readonly functions: Readonly<Record<FunctionName, number>>;
}

/** `int main(struct __sk_buff *skb)` and `int sub(struct __sk_buff *skb)`, both global. */
export function targetBtf(): ProgramBtf {
  const strings = new Strings();
  const info = (kind: number, items: number): number => (kind << 24) | items;
  const [int, struct, pointer, proto] = [1, 2, 3, 4];
  const words = [
    ...[strings.add('int'), info(KIND.int, 0), 4, SIGNED | 32],
    ...[strings.add('__sk_buff'), info(KIND.struct, 0), 4],
    ...[0, info(KIND.ptr, 0), struct],
    ...[0, info(KIND.func_proto, 1), int, strings.add('skb'), pointer],
    ...FUNCTIONS.flatMap((name) => [strings.add(name), info(KIND.func, LINKAGE_GLOBAL), proto]),
  ];
  const types = little(words);
  const names = strings.bytes();
  const header = little([MAGIC | (1 << 16), HEADER_BYTES, 0, types.length, types.length, names.length]);
  return { bytes: Buffer.concat([header, types, names]), functions: { main: proto + 1, sub: proto + 2 } };
}

/**
 * Which function starts at which instruction (struct bpf_func_info).
 * @param starting functions in the program's order: the second starts at `SUB_START`
 */
export function targetFuncInfo(btf: ProgramBtf, starting: readonly FunctionName[]): Uint8Array {
  return little(starting.flatMap((name, i) => [i === 0 ? 0 : SUB_START, btf.functions[name]]));
}

/** Where the second function of a target program starts, in instructions. */
export const SUB_START = 2;

class Strings {
  #text = '\0';

  add(name: string): number {
    const at = this.#text.length;
    this.#text += `${name}\0`;
    return at;
  }

  bytes(): Uint8Array {
    return Buffer.from(this.#text, 'latin1');
  }
}

function little(words: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * words.length);
  const view = new DataView(bytes.buffer);
  words.forEach((word, i) => {
    view.setUint32(4 * i, word, true);
  });
  return bytes;
}
