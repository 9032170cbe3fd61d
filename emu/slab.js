/*
 * kmalloc: objects of powers of two in the direct map, several to a page; larger ones get pages of
 * their own. Freed objects are poisoned and come back oldest first.
 */
import { hex64, InputError, kaddr } from '../lib/index.js';
import { PAGE_SIZE } from './engine.js';
import { FifoMap } from './fifo.js';
import { PageArea, POISON_FREE } from './pages.js';
const SMALLEST = 8;
/** Objects from here on are whole pages. */
const LARGEST = PAGE_SIZE / 2;
export class Slab {
    #space;
    #pages;
    /** Small objects by address; freed ones stay, as undefined: V8's maps get slow where a key comes and goes. */
    #live = new Map();
    /** Size of the objects in a page, by the page's address. */
    #sizes = new Map();
    #freed = new FifoMap();
    #cuttings = new Map();
    constructor(space) {
        this.#space = space;
        this.#pages = new PageArea(space, space.layout.directMap, 'rw', 'kmalloc', this);
    }
    /** @throws InputError for a bad size or alignment, KernelError ENOMEM */
    alloc(sizeBytes, name, align) {
        if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
            throw new InputError('kmalloc', undefined, `the size must be a positive integer, not ${sizeBytes}`);
        }
        if (!Number.isInteger(Math.log2(align)) || align > PAGE_SIZE) {
            throw new InputError('kmalloc', undefined, `the alignment must be a power of two up to ${PAGE_SIZE}, not ${align}`);
        }
        const size = Math.max(SMALLEST, align, 2 ** Math.ceil(Math.log2(sizeBytes)));
        if (size > LARGEST)
            return this.#pages.alloc(sizeBytes, name);
        const start = this.#cut(size);
        this.#space.bytes(start, size).fill(0);
        this.#live.set(start, { name, start, sizeBytes, perms: 'rw' });
        return start;
    }
    /** An object: the rest of the current page first, so that freed ones rest as long as possible. */
    #cut(size) {
        let cutting = this.#cuttings.get(size);
        if (cutting === undefined || cutting.left === 0) {
            const freed = this.#freed.get(size).shift();
            if (freed !== undefined)
                return freed;
            const page = this.#pages.alloc(PAGE_SIZE, `kmalloc-${size}`);
            this.#sizes.set(page, size);
            cutting = { next: page, left: PAGE_SIZE / size };
        }
        this.#cuttings.set(size, { next: kaddr(cutting.next + BigInt(size)), left: cutting.left - 1 });
        return cutting.next;
    }
    /** @throws InputError when no live object starts there */
    free(address) {
        const size = this.#sizes.get(pageOf(address));
        if (size === undefined) {
            this.#pages.free(address);
            return;
        }
        if (this.#live.get(address) === undefined) {
            throw new InputError('kfree', undefined, `no live object starts at ${hex64(address)}`);
        }
        this.#live.set(address, undefined);
        this.#space.bytes(address, size).fill(POISON_FREE);
        this.#freed.get(size).push(address);
    }
    regionAt(address) {
        const page = pageOf(address);
        const size = this.#sizes.get(page);
        if (size === undefined)
            return this.#pages.regionAt(address);
        const index = Math.floor(Number(address - page) / size);
        const object = this.#live.get(kaddr(page + BigInt(index * size)));
        return object !== undefined && address < object.start + BigInt(object.sizeBytes) ? object : undefined;
    }
    /** Whether an address lies in the direct map's part for kmalloc. */
    contains(address) {
        return this.#pages.contains(address);
    }
    /** Whether the two ranges have an address in common. */
    overlaps(start, end) {
        return this.#pages.overlaps(start, end);
    }
    save() {
        const pages = this.#pages.save();
        const live = new Map(this.#live);
        const sizes = new Map(this.#sizes);
        const freed = this.#freed.copy();
        const cuttings = new Map(this.#cuttings);
        return () => {
            pages();
            this.#live = new Map(live);
            this.#sizes = new Map(sizes);
            this.#freed = freed.copy();
            this.#cuttings = new Map(cuttings);
        };
    }
}
function pageOf(address) {
    return kaddr(address & ~BigInt(PAGE_SIZE - 1));
}
//# sourceMappingURL=slab.js.map