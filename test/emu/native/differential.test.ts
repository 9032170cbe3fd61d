/*
 * The same random programs on Unicorn and on the host's CPU, at the same addresses: registers, flags, data,
 * stack, per-CPU word and, where they are counted, instructions. `npm run differential` runs many.
 */

import { expect, test } from 'vitest';
import type { Machine, RegisterName, Vcpu } from '../../../emu/index.ts';
import { addrAdd, type Kaddr, toHex } from '../../../lib/index.ts';
import { machine, nativeMissing, random } from '../machines.ts';
import { DATA_BYTES, randomProgram } from './random-code.ts';

const REGISTERS: readonly RegisterName[] = [
  ...(['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const),
];
const STACK_BYTES = 64;

class Side {
  readonly #on: Machine;
  readonly #cpu: Vcpu;
  readonly #data: Kaddr;
  readonly #text: Kaddr;
  readonly slot: number;

  constructor(on: Machine) {
    this.#on = on;
    this.#cpu = on.cpus[0] as Vcpu;
    this.#data = on.memory.kmalloc(DATA_BYTES, 'data', 64);
    this.#text = on.memory.allocText(4096, 'program');
    this.slot = on.percpu.alloc(8, 8);
  }

  /** Everything that a program leaves behind. */
  run(program: Uint8Array, seed: number, counting: boolean): string[] {
    const { memory, percpu } = this.#on;
    const next = random(seed);
    const stack = memory.bytes(addrAdd(this.#cpu.stack.top, -STACK_BYTES), STACK_BYTES);
    stack.fill(0);
    memory.bytes(this.#data, DATA_BYTES).set(Uint8Array.from({ length: DATA_BYTES }, () => next(256)));
    memory.writeU64(percpu.address(this.slot, 0), BigInt(seed));
    this.#cpu.regs.set('r15', 0n);
    this.#on.patchText(this.#text, program);
    const { ret, instructions, fault } = this.#cpu.call(this.#text, [this.#data]);
    return [
      `ret ${ret.toString(16)}`,
      `fault ${fault?.detail ?? 'none'}`,
      ...(counting ? [`instructions ${instructions}`] : []),
      ...REGISTERS.map((name) => `${name} ${this.#cpu.regs.get(name).toString(16)}`),
      `gs ${memory.readU64(percpu.address(this.slot, 0)).toString(16)}`,
      `data ${toHex(memory.bytes(this.#data, DATA_BYTES))}`,
      `stack ${toHex(stack)}`,
    ];
  }
}

async function compare(seeds: { from: number; to: number }, counting: boolean): Promise<void> {
  const unicorn = new Side(await machine({ engine: 'unicorn', layout: 'user' }));
  const native = new Side(await machine({ engine: 'native', counting }));
  for (let seed = seeds.from; seed < seeds.to; seed++) {
    // Unicorn counts one more than there are iterations of a repeated string instruction.
    const program = randomProgram(random(seed), unicorn.slot, { strings: !counting });
    const one = unicorn.run(program, seed, counting);
    const other = native.run(program, seed, counting);
    if (one.join() !== other.join()) expect(other, `seed ${seed}: ${toHex(program)}`).toEqual(one);
  }
}

const many = Number(process.env['TRAMPLAB_DIFFERENTIAL'] ?? 600);

test.skipIf(nativeMissing !== undefined)(
  'counted programs end alike, after as many instructions',
  async () => {
    await compare({ from: 1, to: 1 + Math.max(60, many / 20) }, true);
  },
  3_600_000,
);

test.skipIf(nativeMissing !== undefined)(
  'programs at full speed end alike',
  async () => {
    await compare({ from: 1_000_000, to: 1_000_000 + many }, false);
  },
  3_600_000,
);
