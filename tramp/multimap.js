/** Empty lists that are kept before anybody sweeps. */
const FEW = 1024;
/**
 * Lists of values by key.
 *
 * A list that gets empty stays for a while: V8's maps leave a deleted entry in its bucket until the whole
 * map is rebuilt, so a key that comes and goes (the symbol of an image) would cost more with each round,
 * and the more so the larger the map is.
 */
export class Multimap {
    #lists = new Map();
    #empty = 0;
    add(key, value) {
        const list = this.#lists.get(key);
        if (list === undefined) {
            this.#lists.set(key, [value]);
            return;
        }
        if (list.length === 0)
            this.#empty--;
        list.push(value);
    }
    remove(key, value) {
        const list = this.#lists.get(key);
        const index = list?.indexOf(value) ?? -1;
        if (list === undefined || index < 0)
            return;
        list.splice(index, 1);
        if (list.length > 0)
            return;
        this.#empty++;
        if (this.#empty < FEW || this.#empty * 2 < this.#lists.size)
            return;
        this.#lists = new Map([...this.#lists].filter(([, values]) => values.length > 0));
        this.#empty = 0;
    }
    /** The values of a key, oldest first. */
    get(key) {
        return this.#lists.get(key) ?? [];
    }
    /** All values. */
    values() {
        return [...this.#lists.values()].flat();
    }
}
//# sourceMappingURL=multimap.js.map