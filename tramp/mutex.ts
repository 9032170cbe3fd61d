import { Bug } from '../lib/index.ts';

/**
 * A lock of the manager. Operations of the host run one at a time, so whoever finds it taken and waits for it
 * waits for ever: that is a deadlock, and a bug.
 * Kernel: struct mutex
 */
export class Mutex {
  readonly name: string;
  #held = false;

  constructor(name: string) {
    this.name = name;
  }

  get held(): boolean {
    return this.#held;
  }

  lock(): void {
    if (!this.tryLock()) throw new Bug(`${this.name} is taken already: deadlock`);
  }

  /** Kernel: mutex_trylock */
  tryLock(): boolean {
    if (this.#held) return false;
    this.#held = true;
    return true;
  }

  unlock(): void {
    if (!this.#held) throw new Bug(`${this.name} is not taken`);
    this.#held = false;
  }

  /** Does something while it is taken. */
  with<T>(work: () => T): T {
    this.lock();
    try {
      return work();
    } finally {
      this.unlock();
    }
  }
}
