/*
 * A struct of the kernel whose functions are programs: each member is an image that runs its program as an
 * fentry program and answers what that returned. It traces nothing: whoever has the pointer calls it.
 *
 *   v6.1    all members in one page, one behind the other
 *   v6.12   each asks for its size first; up to eight pages; a symbol each; a preamble for indirect calls, which
 *           the pointer leaves out where that is checked by its caller
 *
 * Kernel: kernel/bpf/bpf_struct_ops.c
 */

import {
  cfiOffset,
  prepareTrampoline,
  type TrampolineConfig,
  type TrampolineRequest,
  trampolineSize,
} from '../jit/index.ts';
import {
  addrAdd,
  type ErrnoName,
  errnoName,
  InputError,
  type Kaddr,
  KernelError,
  kaddr,
} from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import { IMAGE_BYTES } from './image-memory.ts';
import type { Ksym } from './kallsyms.ts';
import type { Kernel } from './kernel.ts';
import { TrampLink } from './link.ts';
import type { BpfProg } from './prog.ts';
import type { StructOpsRules } from './rev/rules.ts';

/** A function of the struct, and the program that it is. */
export interface StructOpsMember {
  readonly name: string;
  readonly model: FuncModel;
  /** Of type `struct_ops`. */
  readonly prog: BpfProg;
  /** The kernel's own function of that type, which an image names as its original (v6.12). Default none. */
  readonly stub?: Kaddr;
}

/** A member that is in place. */
export interface StructOpsImage {
  readonly name: string;
  readonly image: Kaddr;
  /** Code, bytes. */
  readonly length: number;
  /** What the struct holds: where a caller goes. */
  readonly pointer: Kaddr;
}

interface Page {
  readonly address: Kaddr;
  /** Bytes taken from its start. */
  used: number;
}

/**
 * A struct with its functions in place.
 * @throws InputError without members, twice the same, programs of another type, or in a revision that is not
 *   modelled; KernelError EFAULT no room in the page (v6.1), E2BIG nor in eight (v6.12), what the emitter refuses
 */
export class StructOps {
  readonly members: readonly StructOpsImage[];
  readonly #kernel: Kernel;
  readonly #rules: StructOpsRules;
  readonly #pages: Page[] = [];
  readonly #ksyms: Ksym[] = [];
  readonly #progs: readonly BpfProg[];
  #registered = true;

  /** @param type of the struct, which names the members' symbols. Kernel: bpf_struct_ops_map_update_elem */
  constructor(kernel: Kernel, type: string, members: readonly StructOpsMember[]) {
    const { structOps } = kernel.rules;
    if (structOps === undefined) {
      throw new InputError('struct_ops', undefined, `not modelled in ${kernel.revision}; from v6.1 on it is`);
    }
    const names = new Set(members.map(({ name }) => name));
    if (members.length === 0 || names.size < members.length) {
      throw new InputError('struct_ops', undefined, `${type}: give each member once, and one at least`);
    }
    const other = members.find(({ prog }) => prog.type !== 'struct_ops');
    if (other !== undefined) {
      throw new InputError(
        'struct_ops',
        undefined,
        `${other.prog.name} is of type ${other.prog.type}, not struct_ops`,
      );
    }
    this.#kernel = kernel;
    this.#rules = structOps;
    this.#progs = members.map(({ prog }) => prog);
    try {
      this.members = members.map((member) => this.#place(type, member));
    } catch (error) {
      this.#free();
      throw error;
    }
    for (const prog of this.#progs) prog.get();
  }

  /** Images' pages. */
  get pages(): number {
    return this.#pages.length;
  }

  /** What a member of the struct holds. @throws InputError when there is no such member */
  pointer(name: string): Kaddr {
    const member = this.members.find((candidate) => candidate.name === name);
    if (member !== undefined) return member.pointer;
    const known = this.members.map((candidate) => candidate.name).join(', ');
    throw new InputError('struct_ops', undefined, `no member ${name}; there are ${known}`);
  }

  /** Takes it away; its memory goes when nobody can be in a member. Kernel: bpf_struct_ops_map_free */
  unregister(): void {
    if (!this.#registered) throw new InputError('struct_ops', undefined, 'it is unregistered already');
    this.#registered = false;
    const { grace } = this.#kernel;
    grace.callRcu(() =>
      grace.callRcuTasks(() => {
        this.#free();
        for (const prog of this.#progs) prog.put();
      }),
    );
  }

  #place(type: string, { name, model, prog, stub }: StructOpsMember): StructOpsImage {
    const kernel = this.#kernel;
    const { emitter, helpers, config } = kernel;
    const rules = this.#rules;
    const request: Omit<TrampolineRequest, 'image' | 'imageSize'> = {
      im: kaddr(0),
      origCall: rules.namesStub ? (stub ?? kaddr(0)) : kaddr(0),
      argSizes: model.args.map(({ sizeBytes }) => sizeBytes),
      retSize: model.ret.sizeBytes,
      flags: rules.flags(model.ret.sizeBytes > 0),
      fentry: [new TrampLink(prog).ref()],
      fmodRet: [],
      fexit: [],
      helpers,
      config: config as TrampolineConfig,
      name: `${type}.${name}`,
    };
    const page = rules.asksSize ? this.#room(this.#sizeOf(request)) : (this.#pages[0] ?? this.#newPage());
    const image = addrAdd(page.address, page.used);
    const prepared = prepareTrampoline(emitter, { ...request, image, imageSize: IMAGE_BYTES - page.used });
    if (prepared.bytes === undefined) {
      const code = errnoName(-prepared.ret) as ErrnoName;
      throw new KernelError(code, 'arch_prepare_bpf_trampoline', `${request.name}: ${prepared.why}`);
    }
    if (prepared.warning !== undefined) kernel.warnOn(true, prepared.warning);
    kernel.machine.patchText(image, prepared.bytes);
    page.used += prepared.ret;
    this.#addKsym(rules.ownSymbols ? `bpf__${type}_${name}` : undefined, image, prepared.ret);
    const length = prepared.bytes.length;
    return { name, image, length, pointer: addrAdd(image, rules.namesStub ? cfiOffset(config.cfi) : 0) };
  }

  /** @throws KernelError what the emitter refuses. Kernel: arch_bpf_trampoline_size */
  #sizeOf(request: Omit<TrampolineRequest, 'image' | 'imageSize'>): number {
    const { emitter, machine } = this.#kernel;
    const size = trampolineSize(emitter, request, machine.layout.modulesText.start);
    if (size > 0) return size;
    throw new KernelError(errnoName(-size) as ErrnoName, 'arch_bpf_trampoline_size', request.name ?? '');
  }

  /** A page with so much room: the last, or another one. Kernel: bpf_struct_ops_prepare_trampoline */
  #room(sizeBytes: number): Page {
    const last = this.#pages.at(-1);
    if (last !== undefined && sizeBytes <= IMAGE_BYTES - last.used) return last;
    if (this.#pages.length >= this.#rules.mostPages) {
      throw new KernelError(
        'E2BIG',
        'bpf_struct_ops_prepare_trampoline',
        `${this.#rules.mostPages} pages are full`,
      );
    }
    return this.#newPage();
  }

  /** Kernel: bpf_struct_ops_image_alloc */
  #newPage(): Page {
    const { machine, modmem } = this.#kernel;
    if (this.#rules.charged) modmem.charge(IMAGE_BYTES);
    const page = { address: machine.memory.allocText(IMAGE_BYTES, 'bpf_struct_ops_map'), used: 0 };
    this.#pages.push(page);
    return page;
  }

  #addKsym(name: string | undefined, start: Kaddr, sizeBytes: number): void {
    if (name === undefined) return;
    const ksym: Ksym = { name, start, sizeBytes, kind: 'bpf' };
    this.#kernel.kallsyms.add(ksym);
    this.#ksyms.push(ksym);
  }

  #free(): void {
    const { machine, kallsyms, modmem } = this.#kernel;
    for (const ksym of this.#ksyms.splice(0)) kallsyms.remove(ksym);
    for (const { address } of this.#pages.splice(0)) {
      machine.memory.freeText(address);
      if (this.#rules.charged) modmem.uncharge(IMAGE_BYTES);
    }
  }
}
