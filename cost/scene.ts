/*
 * A mix set up: a function, its programs, and the call of it. The same on an emulator, for counts, and on
 * the host CPU, for times.
 */

import type { Machine, Vcpu } from '../emu/index.ts';
import { Assembler, GET_FUNC_IP, BpfProg as ProgField, patchBytes, piece, rbx, rdi } from '../jit/index.ts';
import { type Attachment, Lab } from '../lab/index.ts';
import { addrAdd, Bug, type Kaddr } from '../lib/index.ts';
import { Kernel, type ManagedRevision, type TrampImage } from '../tramp/index.ts';
import type { Mix } from './mix.ts';

/** The call at a traced function's entry, bytes. */
export const SITE_BYTES = 5;

const FUNCTION = 'traced';
const ARGUMENTS: readonly bigint[] = [1n, 2n, 3n, 4n, 5n, 6n];
/** `lea rax, [rdi + 1]`, or of rax itself without an argument: as short as a function with a result gets. */
const BODY = 'lea rax, [rdi + 1]\nret';
const PROGRAM = 'xor eax, eax\nret';
const PROGRAM_ASKING_IP = `call ${GET_FUNC_IP}\nxor eax, eax\nret`;

export class Scene {
  readonly mix: Mix;
  readonly lab: Lab;
  readonly cpu: Vcpu;
  /** The traced function. */
  readonly entry: Kaddr;
  readonly args: readonly bigint[];
  #attached: Attachment[] = [];

  private constructor(mix: Mix, lab: Lab, cpu: Vcpu, entry: Kaddr) {
    this.mix = mix;
    this.lab = lab;
    this.cpu = cpu;
    this.entry = entry;
    this.args = ARGUMENTS.slice(0, mix.nrArgs);
  }

  /** Sets a mix up on a machine, which the scene owns from then on. */
  static async create(machine: Machine, revision: ManagedRevision, mix: Mix): Promise<Scene> {
    const lab = new Lab(machine, new Kernel(machine, { revision }));
    const target = await lab.loadText(`${FUNCTION}:\ncall __fentry__\n${BODY}`);
    const args = Array.from({ length: mix.nrArgs }, (_, i) => `long a${i}`).join(', ');
    lab.prototype(`long ${FUNCTION}(${args || 'void'})`);
    const entry = target.module.symbol(FUNCTION)?.address;
    const [cpu] = machine.cpus;
    if (entry === undefined || cpu === undefined) throw new Bug('a scene without function or CPU');
    const scene = new Scene(mix, lab, cpu, entry);
    lab.kernel.statsEnabled = mix.statistics;
    await scene.#attach();
    return scene;
  }

  /** The image that the function calls; undefined while nothing is attached. */
  get image(): TrampImage | undefined {
    return this.lab.kernel.trampolines.list()[0]?.curImage;
  }

  /**
   * Calls the function once, in the state that the mix says.
   * @param run drives the CPU; Vcpu.run, or something that does the same
   */
  call(run: Vcpu['run'] = (options) => this.cpu.run(options)): void {
    const { cpu, entry, args, mix } = this;
    if (mix.recursion) this.#setActive(1);
    cpu.begin(entry, args);
    if (mix.retired) {
      const { reason } = run({ stopAt: addrAdd(entry, SITE_BYTES) });
      if (reason !== 'stop') throw new Bug(`the original was not called: ${reason}`);
      for (const attachment of this.#attached) attachment.detach();
      this.#attached = [];
    }
    const { reason, fault } = run();
    if (reason !== 'returned') throw new Bug(`the call did not return: ${fault?.detail ?? reason}`);
    if (mix.recursion) this.#setActive(0);
  }

  /**
   * Puts the scene for good into the state that the mix says, for calls by the thousand. Where call() retires
   * an image for real, which can be done once, here only its ip_after_call is patched: what runs is the same.
   */
  hold(): void {
    const { mix, image } = this;
    if (mix.recursion) this.#setActive(1);
    if (!mix.retired || image?.ipAfterCall === undefined || image.ipEpilogue === undefined) return;
    const jump = patchBytes('JUMP', image.ipAfterCall, image.ipEpilogue);
    if (jump === undefined) throw new Bug('the epilogue is out of reach');
    this.lab.machine.patchText(image.ipAfterCall, jump);
  }

  close(): void {
    this.lab.close();
  }

  /** Oldest first, so that one kind is complete before the next is begun. */
  async #attach(): Promise<void> {
    const { lab, mix } = this;
    const source = mix.getFuncIp ? PROGRAM_ASKING_IP : PROGRAM;
    for (const [kind, count] of [
      ['fentry', mix.fentry],
      ['fmod_ret', mix.fmodRet],
      ['fexit', mix.fexit],
    ] as const) {
      for (let i = 0; i < count; i++) {
        const code = await lab.assemble(`${kind}${i}`, source);
        this.#attached.push(lab.attach(kind, FUNCTION, code, { sleepable: mix.sleepable }));
      }
    }
  }

  #setActive(count: number): void {
    const { memory, percpu } = this.lab.machine;
    for (const { prog } of this.#attached) {
      const active = Number(memory.readU64(addrAdd(prog.address, ProgField.active)));
      memory.writeU32(percpu.address(active, this.cpu.id), count);
    }
  }
}

/** A function that calls the scene's one so many times, with its first argument. */
export function placeLoop({ lab, entry, args }: Scene, calls: number): Kaddr {
  const at = lab.machine.memory.allocText(64, 'loop');
  const asm = new Assembler(at);
  piece('loop', () => {
    const again = asm.label('again');
    asm.push(rbx);
    asm.movImm32(rbx.as(4), calls);
    asm.bind(again);
    asm.movImm32(rdi.as(4), Number(args[0] ?? 0n));
    asm.call(entry, FUNCTION);
    asm.aluImm8('sub', rbx.as(4), 1);
    asm.jccShort('ne', again);
    asm.pop(rbx);
    asm.ret();
  })({ asm });
  lab.machine.patchText(at, asm.bytes());
  return at;
}
