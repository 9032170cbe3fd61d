import type { Machine } from '../../emu/index.ts';

/** What is taken and not given back, by allocator. */
export interface Taken {
  readonly kmalloc: number;
  readonly vmalloc: number;
  readonly text: number;
  readonly percpu: number;
}

/** Counts what a machine's allocators give and get back. */
export class Ledger {
  readonly #taken = { kmalloc: 0, vmalloc: 0, text: 0, percpu: 0 };

  /** Puts itself between a machine and whoever allocates. */
  constructor({ memory, percpu }: Machine) {
    const count = (kind: keyof Taken, by: 1 | -1) => (): void => {
      this.#taken[kind] += by;
    };
    follow(memory, 'kmalloc', count('kmalloc', 1));
    follow(memory, 'kfree', count('kmalloc', -1));
    follow(memory, 'vmalloc', count('vmalloc', 1));
    follow(memory, 'vfree', count('vmalloc', -1));
    follow(memory, 'allocText', count('text', 1));
    follow(memory, 'freeText', count('text', -1));
    follow(percpu, 'alloc', count('percpu', 1));
    follow(percpu, 'free', count('percpu', -1));
  }

  get taken(): Taken {
    return { ...this.#taken };
  }
}

/** Has `then` run after each success of a method. */
export function follow<Owner extends object>(owner: Owner, name: keyof Owner, then: () => void): void {
  const method = owner[name] as (...args: unknown[]) => unknown;
  owner[name] = ((...args: unknown[]): unknown => {
    const result = method.apply(owner, args);
    then();
    return result;
  }) as Owner[typeof name];
}

/** What was taken in between and not given back, in words; empty when nothing was. */
export function leaked(before: Taken, after: Taken): string {
  return (Object.keys(before) as (keyof Taken)[])
    .flatMap((kind) => {
      const more = after[kind] - before[kind];
      return more === 0 ? [] : [`${more} of ${kind}`];
    })
    .join(', ');
}
