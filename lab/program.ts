import { GET_FUNC_IP } from '../jit/index.ts';
import { Bug, InputError, type Kaddr } from '../lib/index.ts';
import { type Btf, type ElfObject, objectBtf, parseElf } from '../obj/index.ts';
import { type Kernel, type KModule, loadModule } from '../tramp/index.ts';
import { type GlobalVariable, globalVariables } from './globals.ts';
import { placeText } from './target.ts';

/**
 * Machine code that can be attached: `u64 f(u64 *ctx)` in the System V convention. Any number of programs
 * can be made of it. It starts with one reference, its owner's, and every program takes one more.
 */
export interface ProgramCode {
  readonly name: string;
  /** Where it is loaded. */
  readonly kernel: Kernel;
  readonly entry: Kaddr;
  /** It asks for the traced function's address. */
  readonly callsGetFuncIp: boolean;
  readonly get: () => void;
  /** Drops a reference: the code is freed with the last one. The code of an object stays as long as the object. */
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
  let references = 1;
  return {
    name,
    kernel,
    entry: address,
    callsGetFuncIp: uses,
    get: () => {
      if (references === 0) throw new Bug(`the code of ${name} is gone`);
      references++;
    },
    put: () => {
      if (references === 0) throw new Bug(`the code of ${name} is put once too often`);
      if (--references > 0) return;
      kernel.kallsyms.remove(ksym);
      free();
    },
  };
}

/** An ELF object whose functions are programs. */
export class ProgramObject {
  readonly module: KModule;
  readonly #kernel: Kernel;
  readonly #object: ElfObject;
  readonly #btf: Btf | undefined;

  /** @throws InputError what is wrong with the file; what it leaves undefined is looked up in what is loaded */
  constructor(kernel: Kernel, bytes: Uint8Array, file: string, name: string) {
    this.#kernel = kernel;
    this.#object = parseElf(bytes, file);
    this.#btf = objectBtf(this.#object);
    this.module = loadModule(kernel, this.#object, name, 'module');
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
      kernel: this.#kernel,
      entry: symbol.address,
      callsGetFuncIp: this.#refersTo(name, GET_FUNC_IP),
      get: () => undefined,
      put: () => undefined,
    };
  }

  /** The variables of the object as they are now, by address. */
  globals(): GlobalVariable[] {
    return globalVariables(this.#kernel.machine.memory, this.module, this.#btf);
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
