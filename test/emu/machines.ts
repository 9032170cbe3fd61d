import { afterEach } from 'vitest';
import { createMachine, type Machine, type MachineOptions } from '../../emu/index.ts';
import type { Kaddr } from '../../lib/index.ts';

const open: Machine[] = [];

afterEach(() => {
  for (const machine of open.splice(0)) machine.close();
});

/** A machine that is closed after the test. */
export async function machine(options?: MachineOptions): Promise<Machine> {
  const made = await createMachine(options);
  open.push(made);
  return made;
}

/** Puts code into text of its own. */
export function place(on: Machine, bytes: Uint8Array, name = 'f'): Kaddr {
  const at = on.memory.allocText(bytes.length, name);
  on.patchText(at, bytes);
  return at;
}

/** A small generator of numbers that are the same in every run: xorshift32. */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}
