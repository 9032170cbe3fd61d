/**
 * A lock of the manager. Operations of the host run one at a time, so whoever finds it taken and waits for it
 * waits for ever: that is a deadlock, and a bug.
 * Kernel: struct mutex
 */
export declare class Mutex {
    #private;
    readonly name: string;
    constructor(name: string);
    get held(): boolean;
    lock(): void;
    /** Kernel: mutex_trylock */
    tryLock(): boolean;
    unlock(): void;
    /** Does something while it is taken. */
    with<T>(work: () => T): T;
}
