/* bpf_arch_text_poke on memory: what is refused, what is written, what is left alone. */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createMachine, type Machine } from '../../emu/index.ts';
import { NOP5, type PokeType, patchBytes } from '../../jit/index.ts';
import { addrAdd, Bug, InputError, type Kaddr, KernelError, kaddr, toHex } from '../../lib/index.ts';
import { Kernel, textPoke } from '../../tramp/index.ts';

let machine: Machine;
let kernel: Kernel;
let text: Kaddr;

beforeEach(async () => {
  machine = await createMachine();
  kernel = new Kernel(machine, { revision: 'v5.15' });
  text = machine.memory.allocText(4096, 'image');
  kernel.kallsyms.add({ name: 'image', start: text, sizeBytes: 4096, kind: 'bpf' });
  machine.patchText(text, Uint8Array.from([...NOP5, 0xc3]));
});
afterEach(() => machine.close());

const bytes = (): string => toHex(machine.memory.bytes(text, 6));
const target = (): Kaddr => addrAdd(text, 256);

function refusal(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof KernelError) return `${error.code} ${error.op}`;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe.each(['CALL', 'JUMP'] as const)('%s', (type: PokeType) => {
  const code = (to: Kaddr | null): string => `${toHex(patchBytes(type, text, to) ?? new Uint8Array())}c3`;

  test('nop, there, elsewhere, nop again', () => {
    for (const [from, to] of [
      [null, target()],
      [target(), addrAdd(target(), 16)],
      [addrAdd(target(), 16), null],
    ] as const) {
      expect(bytes()).toBe(code(from));
      expect(textPoke(kernel, text, type, from, to)).toBe(true);
      expect(bytes()).toBe(code(to));
    }
  });

  test('nothing to do is no change', () => {
    expect(textPoke(kernel, text, type, null, null)).toBe(false);
    textPoke(kernel, text, type, null, target());
    expect(textPoke(kernel, text, type, target(), target())).toBe(false);
    expect(bytes()).toBe(code(target()));
  });

  test('something else stands there', () => {
    const poke = (from: Kaddr | null): string => refusal(() => textPoke(kernel, text, type, from, null));
    expect(poke(target())).toBe('EBUSY bpf_arch_text_poke');
    textPoke(kernel, text, type, null, target());
    expect(poke(null)).toBe('EBUSY bpf_arch_text_poke');
    expect(poke(addrAdd(target(), 1))).toBe('EBUSY bpf_arch_text_poke');
    expect(bytes()).toBe(code(target()));
  });

  test('out of reach', () => {
    const far = addrAdd(text, 5 + 2 ** 31);
    expect(refusal(() => textPoke(kernel, text, type, null, far))).toBe('ERANGE bpf_arch_text_poke');
    expect(refusal(() => textPoke(kernel, text, type, far, null))).toBe('ERANGE bpf_arch_text_poke');
    expect(textPoke(kernel, text, type, null, addrAdd(text, 5 - 2 ** 31))).toBe(true);
  });

  test('outside kernel and BPF text: modules, freed images, data, nowhere', () => {
    const module = machine.memory.allocText(4096, 'module');
    kernel.kallsyms.add({ name: 'f', start: module, sizeBytes: 64, kind: 'module', module: 'm' });
    machine.patchText(module, Uint8Array.from(NOP5));
    const data = machine.memory.kmalloc(64);
    for (const ip of [module, data, kaddr(0), kaddr(-1n), addrAdd(text, 4096)]) {
      expect(refusal(() => textPoke(kernel, ip, type, null, target()))).toBe('EINVAL bpf_arch_text_poke');
    }
    expect(toHex(machine.memory.bytes(module, 5))).toBe(toHex(Uint8Array.from(NOP5)));
  });
});

test('pokes do not nest, and are five bytes', () => {
  expect(() => kernel.text.poke(text, Uint8Array.of(0x90))).toThrow(Bug);
  expect(bytes()).toBe(`${toHex(Uint8Array.from(NOP5))}c3`);
});

test('what runs in between may throw: the text is whole, and the next poke works', () => {
  kernel.sync = () => {
    throw new InputError('task', undefined, 'has no next call');
  };
  const jump = `${toHex(patchBytes('JUMP', text, target()) ?? new Uint8Array())}c3`;
  expect(() => textPoke(kernel, text, 'JUMP', null, target())).toThrow('has no next call');
  expect(bytes()).toBe(jump);
  kernel.sync = () => undefined;
  expect(textPoke(kernel, text, 'JUMP', target(), null)).toBe(true);
  expect(bytes()).toBe(`${toHex(Uint8Array.from(NOP5))}c3`);
});
