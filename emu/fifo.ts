/** A queue: first in, first out, both in constant time. */
class Fifo<T> {
  #items: T[];
  #head: number = 0;

  constructor(items: readonly T[] = []) {
    this.#items = [...items];
  }

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  /** The oldest item, taken out. */
  shift(): T | undefined {
    if (this.length === 0) return undefined;
    const item = this.#items[this.#head++];
    // What was taken out is dropped when it is the larger part: constant time on average.
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  copy(): Fifo<T> {
    return new Fifo(this.#items.slice(this.#head));
  }
}

/** Queues by key, made when first used. */
export class FifoMap<K, T> {
  readonly #queues: Map<K, Fifo<T>>;

  constructor(queues: Iterable<readonly [K, Fifo<T>]> = []) {
    this.#queues = new Map(queues);
  }

  get(key: K): Fifo<T> {
    let queue = this.#queues.get(key);
    if (queue === undefined) {
      queue = new Fifo();
      this.#queues.set(key, queue);
    }
    return queue;
  }

  copy(): FifoMap<K, T> {
    return new FifoMap([...this.#queues].map(([key, queue]) => [key, queue.copy()] as const));
  }
}
