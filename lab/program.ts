import { GET_FUNC_IP } from '../jit/index.ts';
import { InputError, type Kaddr } from '../lib/index.ts';
import { type ElfObject, type LinkedSymbol, parseElf } from '../obj/index.ts';
import { type Kernel, type KModule, loadModule } from '../tramp/index.ts';
import { placeText } from './target.ts';

/** Machine code that can be attached: `u64 f(u64 *ctx)` in the System V convention. */
export interface ProgramCode {
  readonly name: string;
  readonly entry: Kaddr;
  /** It asks for the traced function's address. */
  readonly callsGetFuncIp: boolean;
  /** To be called when a program made of it is attached, and when that is freed. */
  readonly get: () => void;
  readonly put: () => void;
}

/** Assembles a program; its first instruction is its entry. @throws InputError naming the line */
export async function textProgram(
  kernel: Kernel,
  name: string,
  source: string,
  file: string,
): Promise<ProgramCode> {
  const { text, address, free } = await placeText(kernel, source, file, `bpf_prog_${name}`);
  const ksym = { name, start: address, sizeBytes: text.bytes.length, kind: 'bpf' } as const;
  kernel.kallsyms.add(ksym);
  const uses = text.lines.some((line) => new RegExp(`\\b${GET_FUNC_IP}\\b`).test(line.text));
  let references = 0;
  return {
    name,
    entry: address,
    callsGetFuncIp: uses,
    get: () => {
      references++;
    },
    put: () => {
      if (--references > 0) return;
      kernel.kallsyms.remove(ksym);
      free();
    },
  };
}

/** An ELF object whose functions are programs. */
export class ProgramObject {
  readonly module: KModule;
  readonly #object: ElfObject;

  /** @throws InputError what is wrong with the file; what it leaves undefined is looked up in what is loaded */
  constructor(kernel: Kernel, bytes: Uint8Array, file: string, name: string) {
    this.#object = parseElf(bytes, file);
    this.module = loadModule(kernel, this.#object, name);
  }

  /** @throws InputError when there is no such function */
  program(name: string): ProgramCode {
    const symbol = this.module.contents.functions.find((candidate) => candidate.name === name);
    if (symbol === undefined) {
      const known = this.module.contents.functions.map((candidate) => candidate.name);
      throw new InputError(
        this.#object.file,
        undefined,
        `no function ${name}; there are ${known.join(', ')}`,
      );
    }
    return {
      name,
      entry: symbol.address,
      callsGetFuncIp: this.#refersTo(name, GET_FUNC_IP),
      get: () => undefined,
      put: () => undefined,
    };
  }

  /** The variables of the object as bytes, by name. */
  globals(kernel: Kernel): Map<string, Uint8Array> {
    const { memory } = kernel.machine;
    const writable = (symbol: LinkedSymbol): boolean => memory.regionAt(symbol.address)?.perms === 'rw';
    const variables = this.module.contents.symbols.filter(
      (symbol) => symbol.type === 'object' && symbol.sizeBytes > 0 && writable(symbol),
    );
    return new Map(
      variables.map(({ name, address, sizeBytes }) => [name, memory.bytes(address, sizeBytes).slice()]),
    );
  }

  /** Whether a function's code has a relocation against a symbol. */
  #refersTo(fn: string, wanted: string): boolean {
    const { symbols, relocations } = this.#object;
    const symbol = symbols.find(({ name, type }) => name === fn && type === 'func');
    if (symbol === undefined || typeof symbol.section !== 'number') return false;
    const end = symbol.value + BigInt(symbol.sizeBytes);
    return (relocations.get(symbol.section) ?? []).some(
      (reloc) =>
        reloc.symbol.name === wanted && BigInt(reloc.offset) >= symbol.value && BigInt(reloc.offset) < end,
    );
  }
}
