import { Bug } from '../lib/index.js';
/**
 * A lock of the manager. Operations of the host run one at a time, so whoever finds it taken and waits for it
 * waits for ever: that is a deadlock, and a bug.
 * Kernel: struct mutex
 */
export class Mutex {
    name;
    #held = false;
    constructor(name) {
        this.name = name;
    }
    get held() {
        return this.#held;
    }
    lock() {
        if (!this.tryLock())
            throw new Bug(`${this.name} is taken already: deadlock`);
    }
    /** Kernel: mutex_trylock */
    tryLock() {
        if (this.#held)
            return false;
        this.#held = true;
        return true;
    }
    unlock() {
        if (!this.#held)
            throw new Bug(`${this.name} is not taken`);
        this.#held = false;
    }
    /** Does something while it is taken. */
    with(work) {
        this.lock();
        try {
            return work();
        }
        finally {
            this.unlock();
        }
    }
}
//# sourceMappingURL=mutex.js.map