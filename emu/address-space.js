/*
 * The mapped blocks of guest memory, by address: one address space for all vCPUs. The allocators above
 * (pages.ts, slab.ts, percpu.ts) decide what lies where; this knows what is mapped and moves bytes.
 */
import { hex64, InputError, KernelError, kaddr } from '../lib/index.js';
import { PAGE_SIZE } from './engine.js';
/** The x86 breakpoint instruction: what text consists of where nobody wrote any. */
export const INT3 = 0xcc;
/**
 * QEMU inside Unicorn ends the process when its list of memory sections overflows (4096). Long before
 * that, mapping is slow: it rebuilds the list, 0.7 ms at 500 blocks, 3 ms at 1,000.
 */
const MAX_BLOCKS = 1024;
export class AddressSpace {
    layout;
    #engine;
    /** Sorted by address. */
    #blocks = [];
    /** The block found last: most accesses come in groups. */
    #last;
    constructor(engine, layout) {
        this.#engine = engine;
        this.layout = layout;
    }
    /** The block that covers an address. */
    find(address) {
        const last = this.#last;
        if (last !== undefined && address >= last.start && address < last.end)
            return last;
        const block = this.#blocks[this.#indexAfter(address) - 1];
        if (block === undefined || address >= block.end)
            return undefined;
        this.#last = block;
        return block;
    }
    /** How many blocks begin at or below an address. */
    #indexAfter(address) {
        let low = 0;
        let high = this.#blocks.length;
        while (low < high) {
            const middle = (low + high) >>> 1;
            if (this.#blocks[middle].start <= address)
                low = middle + 1;
            else
                high = middle;
        }
        return low;
    }
    /**
     * Maps a new block.
     * @throws InputError for a range that is not whole pages, not mappable in the layout, or not free
     * @throws KernelError ENOMEM when there are too many blocks
     */
    map(start, sizeBytes, perms, owner, use = {}) {
        const end = this.#checkFree(start, sizeBytes, perms);
        const { fill = 0, ...extent } = use;
        const host = this.#engine.allocBlock(sizeBytes, extent);
        if (fill !== 0)
            host.bytes.fill(fill);
        const { buffer, byteOffset } = host.bytes;
        const view = new DataView(buffer, byteOffset, sizeBytes);
        const block = { start, end, perms, host, view, fill, owner };
        this.#attach(block);
        return block;
    }
    /** The end of a range that can be mapped. */
    #checkFree(start, sizeBytes, perms) {
        const refuse = (why) => {
            throw new InputError('guest memory', undefined, `cannot map ${sizeBytes} bytes at ${hex64(start)}: ${why}`);
        };
        if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % PAGE_SIZE !== 0) {
            return refuse(`the size must be a positive multiple of ${PAGE_SIZE}`);
        }
        if (start % BigInt(PAGE_SIZE) !== 0n)
            return refuse('the address must be page-aligned');
        const end = start + BigInt(sizeBytes);
        const { mappable, notMappable } = this.layout;
        if (!mappable.some((area) => area.start <= start && end <= area.end))
            return refuse(notMappable);
        const index = this.#indexAfter(start);
        for (const neighbour of [this.#blocks[index - 1], this.#blocks[index]]) {
            if (neighbour !== undefined && neighbour.start < end && start < neighbour.end) {
                const taken = neighbour.owner.regionAt(neighbour.start)?.name;
                return refuse(`${hex64(neighbour.start)}..${hex64(neighbour.end)} is taken${taken ? ` by ${taken}` : ''}`);
            }
        }
        if (start === 0n && perms === 'rx')
            return refuse('a call of a null pointer must stay a fault');
        if (this.#blocks.length >= MAX_BLOCKS) {
            throw new KernelError('ENOMEM', 'map', `more than ${MAX_BLOCKS} separate mappings`);
        }
        return kaddr(end);
    }
    #attach(block) {
        this.#engine.map(block.start, block.host, block.perms);
        this.#blocks.splice(this.#indexAfter(block.start), 0, block);
    }
    unmap(block) {
        this.#engine.unmap(block.start, block.host);
        this.#blocks.splice(this.#blocks.indexOf(block), 1);
        if (this.#last === block)
            this.#last = undefined;
    }
    /**
     * Writes executable memory, on every vCPU. The caller has checked that the range is mapped `rx`; it may
     * run over several blocks.
     */
    pokeText(address, bytes) {
        for (let done = 0; done < bytes.length;) {
            const at = kaddr(address + BigInt(done));
            const block = this.find(at);
            const offset = Number(at - block.start);
            const length = Math.min(bytes.length - done, block.host.bytes.length - offset);
            block.host.bytes.set(bytes.subarray(done, done + length), offset);
            done += length;
        }
        this.#engine.textChanged(address, bytes.length);
    }
    /** Bytes of one block, which the caller knows to be mapped: live, not a copy. */
    bytes(start, length) {
        const block = this.find(start);
        const offset = Number(start - block.start);
        return block.host.bytes.subarray(offset, offset + length);
    }
    /** Bytes in use, over all blocks. */
    get usedBytes() {
        return this.#blocks.reduce((sum, { host }) => sum + host.lanes * host.usedBytes, 0);
    }
    /** Remembers what is mapped and what the used parts hold. */
    save() {
        const saved = this.#blocks.map((block) => ({ block, ...copyUsed(block) }));
        return () => {
            const wanted = new Set(saved.map(({ block }) => block));
            for (const block of [...this.#blocks])
                if (!wanted.has(block))
                    this.unmap(block);
            const mapped = new Set(this.#blocks);
            for (const { block, lanes, usedBytes } of saved) {
                if (!mapped.has(block))
                    this.#attach(block);
                this.#putBack(block, lanes, usedBytes);
            }
        };
    }
    #putBack(block, lanes, usedBytes) {
        const { host, fill, perms } = block;
        const stride = host.bytes.length / host.lanes;
        lanes.forEach((saved, lane) => {
            const start = lane * stride;
            if (perms === 'rx')
                this.#putBackText(block, saved);
            else
                host.bytes.set(saved, start);
            // What came into use since then goes back to what it was.
            if (host.usedBytes > usedBytes) {
                host.bytes.fill(fill, start + usedBytes, start + host.usedBytes);
                if (perms === 'rx') {
                    this.#engine.textChanged(kaddr(block.start + BigInt(usedBytes)), host.usedBytes - usedBytes);
                }
            }
        });
        host.usedBytes = usedBytes;
    }
    /** Only pages that differ, so that what is translated of the others stays. */
    #putBackText(block, saved) {
        const { bytes } = block.host;
        for (let offset = 0; offset < saved.length; offset += PAGE_SIZE) {
            const page = saved.subarray(offset, offset + PAGE_SIZE);
            if (Buffer.compare(page, bytes.subarray(offset, offset + page.length)) === 0)
                continue;
            bytes.set(page, offset);
            this.#engine.textChanged(kaddr(block.start + BigInt(offset)), page.length);
        }
    }
}
function copyUsed({ host }) {
    const stride = host.bytes.length / host.lanes;
    const lanes = Array.from({ length: host.lanes }, (_, lane) => host.bytes.slice(lane * stride, lane * stride + host.usedBytes));
    return { lanes, usedBytes: host.usedBytes };
}
//# sourceMappingURL=address-space.js.map