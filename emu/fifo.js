/** A queue: first in, first out, both in constant time. */
class Fifo {
    #items;
    #head = 0;
    constructor(items = []) {
        this.#items = [...items];
    }
    get length() {
        return this.#items.length - this.#head;
    }
    push(item) {
        this.#items.push(item);
    }
    /** The oldest item, taken out. */
    shift() {
        if (this.length === 0)
            return undefined;
        const item = this.#items[this.#head++];
        // What was taken out is dropped when it is the larger part: constant time on average.
        if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
            this.#items = this.#items.slice(this.#head);
            this.#head = 0;
        }
        return item;
    }
    copy() {
        return new Fifo(this.#items.slice(this.#head));
    }
}
/** Queues by key, made when first used. */
export class FifoMap {
    #queues;
    constructor(queues = []) {
        this.#queues = new Map(queues);
    }
    get(key) {
        let queue = this.#queues.get(key);
        if (queue === undefined) {
            queue = new Fifo();
            this.#queues.set(key, queue);
        }
        return queue;
    }
    copy() {
        return new FifoMap([...this.#queues].map(([key, queue]) => [key, queue.copy()]));
    }
}
//# sourceMappingURL=fifo.js.map