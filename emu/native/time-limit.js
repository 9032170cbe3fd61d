/*
 * How long a guest may run. What counts is time on a CPU: on a host that is busy with other things, one
 * that has hardly begun is no endless loop. By the clock there is an end to it as well: a process that is
 * stopped uses no CPU.
 */
const LONGEST_BY_THE_CLOCK = 4;
export class TimeLimit {
    #limitMs;
    /** Milliseconds on a CPU so far, where the kernel keeps account. */
    #used;
    #deadline = 0;
    #end = 0;
    /** Asked for when the run turns out to be a long one. */
    #usedAtStart;
    constructor(limitMs, used) {
        this.#limitMs = limitMs;
        this.#used = used;
    }
    start() {
        const now = performance.now();
        this.#deadline = now + this.#limitMs;
        this.#end = now + LONGEST_BY_THE_CLOCK * this.#limitMs;
        this.#usedAtStart = undefined;
    }
    isOver() {
        const now = performance.now();
        this.#usedAtStart ??= this.#used();
        if (now < this.#deadline)
            return false;
        if (now >= this.#end || this.#usedAtStart === undefined)
            return true;
        const left = this.#limitMs - ((this.#used() ?? Number.POSITIVE_INFINITY) - this.#usedAtStart);
        // What it used before it was first asked about is not known: about a millisecond.
        if (left <= 1)
            return true;
        this.#deadline = Math.min(now + left, this.#end);
        return false;
    }
}
//# sourceMappingURL=time-limit.js.map