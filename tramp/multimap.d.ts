/**
 * Lists of values by key.
 *
 * A list that gets empty stays for a while: V8's maps leave a deleted entry in its bucket until the whole
 * map is rebuilt, so a key that comes and goes (the symbol of an image) would cost more with each round,
 * and the more so the larger the map is.
 */
export declare class Multimap<K, V> {
    #private;
    add(key: K, value: V): void;
    remove(key: K, value: V): void;
    /** The values of a key, oldest first. */
    get(key: K): readonly V[];
    /** All values. */
    values(): V[];
}
