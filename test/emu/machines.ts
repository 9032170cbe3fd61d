import { afterEach, describe } from 'vitest';
import {
  createMachine,
  type EngineName,
  type Layout,
  type Machine,
  type MachineOptions,
} from '../../emu/index.ts';
import { KERNEL_LAYOUT, USER_LAYOUT } from '../../emu/layout.ts';
import { InputError, type Kaddr } from '../../lib/index.ts';

/** Why the engine `native` cannot be tested here: what the host says to it. Undefined when it can. */
export const nativeMissing: string | undefined = await createMachine({ engine: 'native' }).then(
  (made) => {
    made.close();
    return undefined;
  },
  (error: unknown) => {
    if (error instanceof InputError) return error.message;
    throw error;
  },
);

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

/** Makes machines of one engine, closed after the test. */
export type MakeMachine = (options?: MachineOptions) => Promise<Machine>;

/** The same tests on each engine there is an own implementation for; on `native`, calls are counted. */
export function onEachEngine(
  tests: (machine: MakeMachine, layout: Layout, engine: EngineName) => void,
): void {
  describe('unicorn', () => tests(machine, KERNEL_LAYOUT, 'unicorn'));
  describe.skipIf(nativeMissing !== undefined)('native', () =>
    tests((options) => machine({ engine: 'native', ...options }), USER_LAYOUT, 'native'),
  );
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
