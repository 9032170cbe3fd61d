/** A queue: first in, first out, both in constant time. */
declare class Fifo<T> {
    #private;
    constructor(items?: readonly T[]);
    get length(): number;
    push(item: T): void;
    /** The oldest item, taken out. */
    shift(): T | undefined;
    copy(): Fifo<T>;
}
/** Queues by key, made when first used. */
export declare class FifoMap<K, T> {
    #private;
    constructor(queues?: Iterable<readonly [K, Fifo<T>]>);
    get(key: K): Fifo<T>;
    copy(): FifoMap<K, T>;
}
export {};
