/*
 * How long a guest may run. What counts is time on a CPU: on a host that is busy with other things, one
 * that has hardly begun is no endless loop. By the clock there is an end to it as well: a process that is
 * stopped uses no CPU.
 */

const LONGEST_BY_THE_CLOCK = 4;

export class TimeLimit {
  readonly #limitMs: number;
  /** Milliseconds on a CPU so far, where the kernel keeps account. */
  readonly #used: () => number | undefined;
  #deadline: number = 0;
  #end: number = 0;
  /** Asked for when the run turns out to be a long one. */
  #usedAtStart: number | undefined;

  constructor(limitMs: number, used: () => number | undefined) {
    this.#limitMs = limitMs;
    this.#used = used;
  }

  start(): void {
    const now = performance.now();
    this.#deadline = now + this.#limitMs;
    this.#end = now + LONGEST_BY_THE_CLOCK * this.#limitMs;
    this.#usedAtStart = undefined;
  }

  isOver(): boolean {
    const now = performance.now();
    this.#usedAtStart ??= this.#used();
    if (now < this.#deadline) return false;
    if (now >= this.#end || this.#usedAtStart === undefined) return true;
    const left = this.#limitMs - ((this.#used() ?? Number.POSITIVE_INFINITY) - this.#usedAtStart);
    // What it used before it was first asked about is not known: about a millisecond.
    if (left <= 1) return true;
    this.#deadline = Math.min(now + left, this.#end);
    return false;
  }
}
