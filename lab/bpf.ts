import type {
  ArrayMap,
  BpfObject,
  BpfRuntime,
  BpfVariable,
  LoadedBpf,
  LoadedProgram,
  ProgramListing,
} from '../bpf/index.ts';
import { listProgram } from '../bpf/index.ts';
import { addrAdd, InputError, type Kaddr, KernelError } from '../lib/index.ts';
import { type Btf, bareType } from '../obj/index.ts';
import type { BpfProg } from '../tramp/index.ts';
import { LabMap } from './bpf-map.ts';
import { type CInput, type CValue, decode, encode } from './bpf-values.ts';
import { type GlobalVariable, typeById } from './globals.ts';
import type { Attachment, AttachPlace } from './lab.ts';

export interface LoadBpfFileOptions {
  /** The object's contents; read from the file when left out. */
  readonly bytes?: Uint8Array;
  /** False leaves programs to the interpreter. Default true. Kernel: net.core.bpf_jit_enable */
  readonly jited?: boolean;
  /** Options of the kernel's configuration for `__kconfig`, as `.config` has them: `CONFIG_HZ` -> `250`. */
  readonly kconfig?: ReadonlyMap<string, string>;
  /** Programs to load although their sections begin with `?`. */
  readonly also?: readonly string[];
  /** Programs not to load. libbpf: bpf_program__set_autoload */
  readonly without?: readonly string[];
  /** Where programs shall attach, by name, in place of what their sections say. libbpf: bpf_program__set_attach_target */
  readonly targets?: Readonly<Record<string, string>>;
}

/** What the lab does for an object that it has loaded. */
interface LabSide {
  readonly attach: (program: LoadedProgram, to: string, cookie: bigint | number | undefined) => Attachment;
  readonly closed: () => void;
}

export interface AttachBpfOptions {
  /** The function; default the one that the section names. */
  readonly to?: string;
  /** What bpf_get_attach_cookie answers, 64 bits; v6.1 on. */
  readonly cookie?: bigint | number;
}

/** An eBPF object in the lab. */
export class BpfPrograms {
  readonly object: BpfObject;
  readonly loaded: LoadedBpf;
  readonly #runtime: BpfRuntime;
  readonly #side: LabSide;
  readonly #maps: ReadonlyMap<string, LabMap>;
  readonly #attached: Attachment[] = [];

  constructor(runtime: BpfRuntime, loaded: LoadedBpf, side: LabSide) {
    this.#runtime = runtime;
    this.loaded = loaded;
    this.object = loaded.object;
    this.#side = side;
    const { machine } = runtime.kernel;
    this.#maps = new Map(
      loaded.object.maps.flatMap((def) => {
        const map = loaded.maps.get(def.name);
        return map === undefined ? [] : [[def.name, new LabMap(machine, map, loaded.object.btf, def)]];
      }),
    );
  }

  /** The programs that are loaded, by name. */
  get programs(): ReadonlyMap<string, LoadedProgram> {
    return this.loaded.programs;
  }

  /** @throws InputError when there is none of that name, or it is not loaded */
  program(name: string): LoadedProgram {
    const found = this.programs.get(name);
    if (found !== undefined) return found;
    throw new InputError(
      this.object.file,
      undefined,
      `no program ${name} is loaded; there are ${[...this.programs.keys()].join(', ')}`,
    );
  }

  /** A program's functions, compiled: address, bytes, instruction, eBPF instruction, source line. */
  listing(name: string): ProgramListing[] {
    return listProgram(this.#runtime.kernel, this.program(name));
  }

  // -- attaching --------------------------------------------------------------------------------

  /**
   * Attaches every program whose section says where, in the order of the object; those with `?` only by name.
   * @param cookies by program
   * @throws InputError, KernelError; those that were attached by then are detached again
   */
  attachAll(cookies: Readonly<Record<string, bigint>> = {}): Attachment[] {
    const done: Attachment[] = [];
    try {
      for (const [name, { program }] of this.programs) {
        if (program.attachTo === undefined || !program.autoload) continue;
        const cookie = cookies[name];
        done.push(this.attach(name, cookie === undefined ? {} : { cookie }));
      }
    } catch (error) {
      for (const attachment of done) attachment.detach();
      throw error;
    }
    return done;
  }

  /** Attaches one program. @throws InputError, KernelError; nothing has changed then */
  attach(name: string, { to, cookie }: AttachBpfOptions = {}): Attachment {
    const program = this.program(name);
    const target = to ?? program.program.attachTo;
    if (target === undefined) {
      const { section } = program.program;
      throw new InputError(
        this.object.file,
        undefined,
        `${name}: section ${section} does not say where; give \`to\``,
      );
    }
    const attachment = this.#side.attach(program, target, cookie);
    this.#attached.push(attachment);
    return attachment;
  }

  // -- variables --------------------------------------------------------------------------------

  /**
   * The variables of `.data` and `.bss` and their like, as they are now, by section and offset.
   * @param options.readOnly also those of `.rodata` and `.kconfig`
   */
  globals(options: { readonly readOnly?: boolean } = {}): GlobalVariable[] {
    return this.#variables()
      .filter(({ readOnly }) => !readOnly || options.readOnly === true)
      .map(({ variable, address }) => ({
        name: variable.name,
        bytes: this.#bytes(address, variable.sizeBytes),
        ...typeById(this.object.btf as Btf, variable.type),
      }));
  }

  /** A variable's value, as its type says; see CValue. @throws InputError when there is none of that name */
  get(name: string): CValue {
    const { variable, address } = this.#variable(name);
    return decode(this.object.btf, variable.type, this.#bytes(address, variable.sizeBytes));
  }

  /** Writes a variable. @throws InputError for a value that it does not hold, or one that never changes */
  set(name: string, value: CInput): void {
    const { variable, address, readOnly } = this.#variable(name);
    if (readOnly) {
      throw new InputError(name, undefined, 'it is read-only once its object is loaded');
    }
    const bytes = encode(this.object.btf, variable.type, variable.sizeBytes, value, name);
    this.#runtime.kernel.machine.memory.write(address, bytes);
  }

  #variables(): { readonly variable: BpfVariable; readonly address: Kaddr; readonly readOnly: boolean }[] {
    return this.loaded.globals.flatMap(
      ({ globals, map }: { globals: BpfObject['globals'][number]; map: ArrayMap }) =>
        globals.variables.map((variable) => ({
          variable,
          address: addrAdd(map.values, variable.offset),
          readOnly: globals.readOnly,
        })),
    );
  }

  #variable(name: string): {
    readonly variable: BpfVariable;
    readonly address: Kaddr;
    readonly readOnly: boolean;
  } {
    const all = this.#variables();
    const found = all.find(({ variable }) => variable.name === name);
    if (found !== undefined) return found;
    const known = all.map(({ variable }) => variable.name);
    throw new InputError(this.object.file, undefined, `no variable ${name}; there are ${known.join(', ')}`);
  }

  #bytes(address: Kaddr, sizeBytes: number): Uint8Array {
    return this.#runtime.kernel.machine.memory.bytes(address, sizeBytes).slice();
  }

  // -- maps -------------------------------------------------------------------------------------

  /** @throws InputError when there is none of that name */
  map(name: string): LabMap {
    const found = this.#maps.get(name);
    if (found !== undefined) return found;
    const known = [...this.#maps.keys()].join(', ');
    throw new InputError(
      this.object.file,
      undefined,
      `no map ${name}; there ${known === '' ? 'is none' : `are ${known}`}`,
    );
  }

  get maps(): ReadonlyMap<string, LabMap> {
    return this.#maps;
  }

  /** Detaches all of it and lets go of it. */
  close(): void {
    for (const attachment of this.#attached.splice(0)) {
      if (attachment.attached()) attachment.detach();
    }
    for (const map of this.#maps.values()) map.close();
    this.loaded.close();
    this.#side.closed();
  }
}

/**
 * The function of a loaded program that others attach to: the newest of that name.
 * @throws KernelError EINVAL when that is not compiled. Kernel: bpf_check_attach_target
 */
export function bpfPlace(objects: readonly BpfPrograms[], name: string): AttachPlace | undefined {
  for (const { object, programs } of [...objects].reverse()) {
    for (const { prog, placed, checked } of programs.values()) {
      if (!prog.jited && checked.functions.some((one) => one.name === name)) {
        throw new KernelError('EINVAL', 'bpf_check_attach_target', `${name}: Can only attach to JITed progs`);
      }
      const index = placed.findIndex((one) => one.name === name);
      const one = placed[index];
      const model = object.btf?.funcModel(name);
      const id = object.btf?.funcId(name);
      if (one === undefined || model === undefined || id === undefined) continue;
      return { key: (idOf(prog) << 32n) | BigInt(id), target: { addr: one.address, model, prog } };
    }
  }
  return undefined;
}

/** Programs are numbered as somebody asks. Kernel: prog->aux->id */
const ids = new WeakMap<BpfProg, bigint>();
let nextId = 1n;
function idOf(prog: BpfProg): bigint {
  const id = ids.get(prog) ?? nextId++;
  ids.set(prog, id);
  return id;
}

/** The type of a symbol: of a function itself, of a variable what it is. */
export function symbolType(btf: Btf, name: string): number | undefined {
  const func = btf.funcId(name);
  if (func !== undefined) return func;
  const variable = btf.types.find((type) => type.kind === 'var' && type.name === name);
  return variable?.kind === 'var' ? bareType(btf, variable.type).id : undefined;
}

/** The object, with programs sent elsewhere. @throws InputError for a name that no program has */
export function aimed(object: BpfObject, targets: Readonly<Record<string, string>> = {}): BpfObject {
  for (const name of Object.keys(targets)) {
    if (object.programs.some((program) => program.name === name)) continue;
    const known = object.programs.map((program) => program.name).join(', ');
    throw new InputError(object.file, undefined, `no program ${name}; there are ${known}`);
  }
  const programs = object.programs.map((program) => {
    const to = targets[program.name];
    return to === undefined ? program : { ...program, attachTo: to };
  });
  return { ...object, programs };
}
