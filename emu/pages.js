/*
 * Allocation of whole pages from one area of the address space, all with one protection.
 *
 * The area is mapped in chunks, on demand, and a chunk stays mapped. Not page by page: mapping one more
 * page among n costs time that grows with n (measured, libunicorn 2.0.1, per vCPU: 13 us at 10 pages,
 * 0.7 ms at 500, 31 ms at 3,000, and the process ends at 4,096), and so does taking a page out of a
 * larger mapping or changing its protection (7 ms at once, 110 ms at 1,500 holes). With chunks, 20,000
 * live images are 24 mappings, and to allocate or free one page costs the same at any number.
 *
 * A freed page of text is therefore still mapped, but every byte of it is int3 and no vCPU has a
 * translation of the old bytes: the first instruction fetched from it traps, whichever it is, and the
 * machine reports the trap by what the page was (fault.ts). Simplified: a guest that only reads freed
 * text reads int3 and does not fault.
 *
 *        alloc                     free
 *   fresh ────▶ live (region) ────────────▶ freed, name kept ──┐
 *                 ▲                                            │ QUARANTINE_PAGES later, oldest first
 *                 └────────────────────────────────────────────┘
 */
import { alignUp, hex64, InputError, KernelError, kaddr } from '../lib/index.js';
import { INT3 } from './address-space.js';
import { PAGE_SIZE } from './engine.js';
import { FifoMap } from './fifo.js';
/** The first chunk; each further one is as large as all before it together, up to the largest. */
const FIRST_CHUNK_BYTES = 256 * 1024;
const LARGEST_CHUNK_BYTES = 4 * 1024 * 1024;
/** Freed pages of one size that must be waiting before the oldest comes back into use. */
const QUARANTINE_PAGES = 1024;
/** What freed data holds, as SLUB's POISON_FREE. As a pointer it is not canonical: using it is #GP. */
export const POISON_FREE = 0x6b;
export class PageArea {
    #space;
    #owner;
    #range;
    #perms;
    #fill;
    #op;
    /** By page of the area. */
    #owners = [];
    /** Freed allocations by size and alignment. */
    #freed = new FifoMap();
    /** The current chunk, and the first page of it that was never used. */
    #chunk;
    #fresh;
    /**
     * @param op the allocating function, for errors
     * @param owner who names what is in the pages; default the area itself
     */
    constructor(space, range, perms, op, owner) {
        this.#owner = owner ?? this;
        this.#space = space;
        this.#range = range;
        this.#perms = perms;
        this.#fill = perms === 'rx' ? INT3 : 0;
        this.#op = op;
        this.#fresh = range.start;
    }
    /**
     * Takes pages: zeroed, or int3 for text.
     * @throws InputError for a bad size or alignment, KernelError ENOMEM when the area is full
     */
    alloc(sizeBytes, name, align = PAGE_SIZE) {
        this.#check(sizeBytes, align);
        const bytes = Math.ceil(sizeBytes / PAGE_SIZE) * PAGE_SIZE;
        const waiting = this.#freed.get(shape(bytes, align));
        let start;
        if (waiting.length * bytes >= QUARANTINE_PAGES * PAGE_SIZE)
            start = waiting.shift();
        start ??= this.#takeFresh(bytes, align) ?? waiting.shift();
        if (start === undefined)
            throw new KernelError('ENOMEM', this.#op, `no room for ${sizeBytes} bytes`);
        if (this.#perms !== 'rx')
            this.#space.bytes(start, bytes).fill(0);
        const region = { name, start, sizeBytes: bytes, perms: this.#perms };
        this.#setOwner({ region, align, live: true });
        return start;
    }
    #check(sizeBytes, align) {
        if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
            throw new InputError(this.#op, undefined, `the size must be a positive integer, not ${sizeBytes}`);
        }
        if (!Number.isSafeInteger(align) || align < PAGE_SIZE || !Number.isInteger(Math.log2(align))) {
            throw new InputError(this.#op, undefined, `the alignment must be a power of two from ${PAGE_SIZE} on, not ${align}`);
        }
    }
    #takeFresh(bytes, align) {
        const size = BigInt(bytes);
        let start = alignUp(this.#fresh, align);
        if (this.#chunk === undefined || start + size > this.#chunk.end) {
            const mapFrom = this.#chunk === undefined ? this.#range.start : kaddr(this.#chunk.end);
            start = alignUp(mapFrom, align);
            const need = Number(start + size - mapFrom);
            const before = Number(mapFrom - this.#range.start);
            const wish = Math.min(Math.max(FIRST_CHUNK_BYTES, before), LARGEST_CHUNK_BYTES);
            const chunkBytes = Math.max(wish, need);
            if (mapFrom + BigInt(chunkBytes) > this.#range.end)
                return undefined;
            this.#chunk = this.#space.map(mapFrom, chunkBytes, this.#perms, this.#owner, {
                fill: this.#fill,
                usedBytes: 0,
            });
        }
        this.#fresh = kaddr(start + size);
        this.#chunk.host.usedBytes = Number(this.#fresh - this.#chunk.start);
        return start;
    }
    /**
     * Gives pages back. They are filled with int3 (data: poison) and keep their name.
     * @throws InputError when no live allocation starts there
     */
    free(address) {
        const owner = this.#owners[this.#pageOf(address)];
        if (!this.contains(address) || owner?.region.start !== address || !owner.live) {
            const why = owner !== undefined && !owner.live ? `${owner.region.name} is freed already` : 'nothing starts there';
            throw new InputError(this.#op, undefined, `cannot free ${hex64(address)}: ${why}`);
        }
        const { region, align } = owner;
        if (this.#perms === 'rx')
            this.#space.pokeText(address, new Uint8Array(region.sizeBytes).fill(INT3));
        else
            this.#space.bytes(address, region.sizeBytes).fill(POISON_FREE);
        this.#setOwner({ region, align, live: false });
        this.#freed.get(shape(region.sizeBytes, align)).push(address);
    }
    /** Whether an address lies in the area, mapped or not. */
    contains(address) {
        return address >= this.#range.start && address < this.#range.end;
    }
    /** Whether the two ranges have an address in common. */
    overlaps(start, end) {
        return start < this.#range.end && this.#range.start < end;
    }
    regionAt(address) {
        const owner = this.#ownerAt(address);
        return owner?.live === true ? owner.region : undefined;
    }
    /** What used to cover an address that nothing covers now. */
    freedAt(address) {
        const owner = this.#ownerAt(address);
        return owner?.live === false ? owner.region : undefined;
    }
    save() {
        const owners = [...this.#owners];
        const freed = this.#freed.copy();
        const chunk = this.#chunk;
        const fresh = this.#fresh;
        return () => {
            this.#owners = [...owners];
            this.#freed = freed.copy();
            this.#chunk = chunk;
            this.#fresh = fresh;
        };
    }
    #ownerAt(address) {
        return this.contains(address) ? this.#owners[this.#pageOf(address)] : undefined;
    }
    #setOwner(owner) {
        const first = this.#pageOf(owner.region.start);
        const pages = owner.region.sizeBytes / PAGE_SIZE;
        for (let page = first; page < first + pages; page++)
            this.#owners[page] = owner;
    }
    #pageOf(address) {
        return Number((address - this.#range.start) / BigInt(PAGE_SIZE));
    }
}
function shape(bytes, align) {
    return `${bytes}/${align}`;
}
//# sourceMappingURL=pages.js.map