/*
 * How long a guest may run. What counts is time on a CPU: on a host that is busy with other things, one
 * that has hardly begun is no endless loop. By the clock there is an end to it as well: a process that is
 * stopped uses no CPU.
 */

import type { Child } from './child.ts';

const LONGEST_BY_THE_CLOCK = 4;

export class TimeLimit {
  readonly #child: Child;
  readonly #id: number;
  readonly #limitMs: number;
  readonly #end: number;
  #deadline: number;
  /** Asked for when the run turns out to be a long one. */
  #cpuAtStart: number | undefined;

  constructor(child: Child, id: number, limitMs: number) {
    this.#child = child;
    this.#id = id;
    this.#limitMs = limitMs;
    const now = performance.now();
    this.#deadline = now + limitMs;
    this.#end = now + LONGEST_BY_THE_CLOCK * limitMs;
  }

  isOver(): boolean {
    const now = performance.now();
    const cpu = (): number | undefined => this.#child.cpuMilliseconds(this.#id);
    this.#cpuAtStart ??= cpu();
    if (now < this.#deadline) return false;
    if (now >= this.#end || this.#cpuAtStart === undefined) return true;
    const left = this.#limitMs - ((cpu() ?? Number.POSITIVE_INFINITY) - this.#cpuAtStart);
    // What it used before it was first asked about is not known: about a millisecond.
    if (left <= 1) return true;
    this.#deadline = Math.min(now + left, this.#end);
    return false;
  }
}
