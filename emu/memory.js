/*
 * Guest memory as the lab uses it: allocators by purpose, reads and writes by the host.
 */
import { addrAdd, hex64, InputError, KernelError, kaddr } from '../lib/index.js';
import { AddressSpace, INT3 } from './address-space.js';
import { PAGE_SIZE } from './engine.js';
import { PageArea } from './pages.js';
import { PerCpuAreas } from './percpu.js';
import { Slab } from './slab.js';
const WHERE = 'guest memory';
/** Freed data that is remembered by name. */
const FREED_NAMES = 1024;
export class Memory {
    space;
    percpu;
    #slab;
    #text;
    #data;
    #rodata;
    #kernelText;
    #kernelData;
    #kernelRodata;
    /** What has a mapping of its own: map() and vmalloc(). */
    #mapped = new Map();
    #freedText = [];
    /** What was unmapped last, to name it when a guest still uses it. */
    #freedData = [];
    #vmalloc;
    /** vmalloc addresses are never used twice: there are 32 TiB of them. */
    #nextVmalloc;
    constructor(engine, nrCpus, layout) {
        this.space = new AddressSpace(engine, layout);
        this.#vmalloc = layout.vmalloc;
        this.#nextVmalloc = layout.vmalloc.start;
        this.percpu = new PerCpuAreas(this.space, nrCpus);
        this.#slab = new Slab(this.space);
        this.#text = new PageArea(this.space, layout.modulesText, 'rx', 'module_alloc');
        this.#data = new PageArea(this.space, layout.modulesData, 'rw', 'module_alloc');
        this.#rodata = new PageArea(this.space, layout.modulesRodata, 'r', 'module_alloc');
        this.#kernelText = new PageArea(this.space, layout.kernelText, 'rx', 'kernel text');
        this.#kernelData = new PageArea(this.space, layout.kernelData, 'rw', 'kernel data');
        this.#kernelRodata = new PageArea(this.space, layout.kernelRodata, 'r', 'kernel rodata');
    }
    get #areas() {
        return [this.#text, this.#data, this.#rodata, this.#kernelText, this.#kernelData, this.#kernelRodata];
    }
    // Mappings of their own
    map(address, sizeBytes, perms, name) {
        const end = Number.isSafeInteger(sizeBytes) ? address + BigInt(sizeBytes) : address;
        const inVmalloc = address < this.#vmalloc.end && this.#vmalloc.start < end;
        if (inVmalloc || [...this.#areas, this.#slab].some((area) => area.overlaps(address, end))) {
            throw new InputError(WHERE, undefined, `${hex64(address)} is kept for the machine's own allocators: see layout.ts`);
        }
        const region = this.#map(address, sizeBytes, perms, name);
        this.#freedText = this.#freedText.filter((freed) => freed.start >= end || freed.start + BigInt(freed.sizeBytes) <= address);
        return region;
    }
    #map(address, sizeBytes, perms, name) {
        const region = { name, start: address, sizeBytes, perms };
        const fill = perms === 'rx' ? INT3 : 0;
        const block = this.space.map(address, sizeBytes, perms, { regionAt: () => region }, { fill });
        this.#mapped.set(address, { region, block });
        return region;
    }
    unmap(region) {
        const mapped = this.#mapped.get(region.start);
        if (mapped?.region !== region) {
            throw new InputError(WHERE, undefined, `${region.name} at ${hex64(region.start)} is not mapped`);
        }
        this.#mapped.delete(region.start);
        this.space.unmap(mapped.block);
        if (region.perms === 'rx')
            this.#freedText = [...this.#freedText, region];
        else
            this.#freedData = [...this.#freedData.slice(1 - FREED_NAMES), region];
    }
    // Text and data near it
    allocText(sizeBytes, name, options = {}) {
        return this.#text.alloc(sizeBytes, name, options.align);
    }
    freeText(address) {
        this.#areaOf(address, this.#text, this.#kernelText).free(address);
    }
    allocData(sizeBytes, name, options = {}) {
        return this.#data.alloc(sizeBytes, name, options.align);
    }
    allocRodata(sizeBytes, name, options = {}) {
        return this.#rodata.alloc(sizeBytes, name, options.align);
    }
    freeData(address) {
        this.#areaOf(address, this.#data, this.#rodata, this.#kernelData, this.#kernelRodata).free(address);
    }
    #areaOf(address, ...areas) {
        const area = areas.find((candidate) => candidate.contains(address));
        if (area === undefined) {
            throw new InputError(WHERE, undefined, `${hex64(address)} does not come from this allocator`);
        }
        return area;
    }
    allocKernelText(sizeBytes, name) {
        return this.#kernelText.alloc(sizeBytes, name);
    }
    allocKernelData(sizeBytes, name, perms = 'rw') {
        return (perms === 'rw' ? this.#kernelData : this.#kernelRodata).alloc(sizeBytes, name);
    }
    // Data anywhere
    kmalloc(sizeBytes, name = 'kmalloc', align = 8) {
        return this.#slab.alloc(sizeBytes, name, align);
    }
    kfree(address) {
        if (!this.#slab.contains(address)) {
            throw new InputError('kfree', undefined, `${hex64(address)} does not come from kmalloc`);
        }
        this.#slab.free(address);
    }
    vmalloc(sizeBytes, name = 'vmalloc') {
        if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
            throw new InputError('vmalloc', undefined, `the size must be a positive integer, not ${sizeBytes}`);
        }
        const bytes = Math.ceil(sizeBytes / PAGE_SIZE) * PAGE_SIZE;
        const start = addrAdd(this.#nextVmalloc, PAGE_SIZE);
        if (start + BigInt(bytes + PAGE_SIZE) > this.#vmalloc.end) {
            throw new KernelError('ENOMEM', 'vmalloc', `no room for ${sizeBytes} bytes`);
        }
        this.#map(start, bytes, 'rw', name);
        this.#nextVmalloc = addrAdd(start, bytes + PAGE_SIZE);
        return start;
    }
    vfree(address) {
        const mapped = this.#inVmalloc(address) ? this.#mapped.get(address) : undefined;
        if (mapped === undefined) {
            throw new InputError('vfree', undefined, `no vmalloc area starts at ${hex64(address)}`);
        }
        this.unmap(mapped.region);
    }
    // Who is where
    regionAt(address) {
        return this.space.find(address)?.owner.regionAt(address);
    }
    /** The freed text that used to be at an address where no text is now. */
    freedTextAt(address) {
        return (this.#text.freedAt(address) ??
            this.#kernelText.freedAt(address) ??
            this.#freedText.find((text) => address >= text.start && address < text.start + BigInt(text.sizeBytes)));
    }
    /** The freed data that used to be at an address where nothing is now; the last one that was freed. */
    freedDataAt(address) {
        return this.#freedData.findLast((data) => address >= data.start && address < data.start + BigInt(data.sizeBytes));
    }
    /** The vmalloc area (a stack, mostly) whose guard page covers an address. */
    guardedBy(address) {
        if (!this.#inVmalloc(address))
            return undefined;
        const above = this.regionAt(addrAdd(address, PAGE_SIZE));
        const below = this.regionAt(addrAdd(address, -PAGE_SIZE));
        return [above, below].find((region) => region !== undefined && this.#inVmalloc(region.start));
    }
    #inVmalloc(address) {
        return address >= this.#vmalloc.start && address < this.#vmalloc.end;
    }
    // Reading and writing by the host
    readU8(address) {
        const block = this.#blockAt(address, 1);
        return block.view.getUint8(Number(address - block.start));
    }
    readU16(address) {
        const block = this.#blockAt(address, 2);
        return block.view.getUint16(Number(address - block.start), true);
    }
    readU32(address) {
        const block = this.#blockAt(address, 4);
        return block.view.getUint32(Number(address - block.start), true);
    }
    readU64(address) {
        const block = this.#blockAt(address, 8);
        return block.view.getBigUint64(Number(address - block.start), true);
    }
    writeU8(address, value) {
        const block = this.#dataAt(address, 1);
        block.view.setUint8(Number(address - block.start), value);
    }
    writeU16(address, value) {
        const block = this.#dataAt(address, 2);
        block.view.setUint16(Number(address - block.start), value, true);
    }
    writeU32(address, value) {
        const block = this.#dataAt(address, 4);
        block.view.setUint32(Number(address - block.start), value, true);
    }
    writeU64(address, value) {
        const block = this.#dataAt(address, 8);
        block.view.setBigUint64(Number(address - block.start), value, true);
    }
    bytes(address, length) {
        const block = this.#regionBlock(address, length);
        const offset = Number(address - block.start);
        return block.host.bytes.subarray(offset, offset + length);
    }
    write(address, bytes) {
        if (bytes.length === 0)
            return;
        const block = this.#regionBlock(address, bytes.length);
        refuseText(block, address);
        block.host.bytes.set(bytes, Number(address - block.start));
    }
    #blockAt(address, length) {
        const block = this.space.find(address);
        if (block === undefined || address + BigInt(length) > block.end)
            throw notMapped(address, length);
        return block;
    }
    #dataAt(address, length) {
        const block = this.#blockAt(address, length);
        refuseText(block, address);
        return block;
    }
    /** The block of a range that one region covers. */
    #regionBlock(address, length) {
        const block = this.space.find(address);
        const region = block?.owner.regionAt(address);
        if (block === undefined || region === undefined)
            throw notMapped(address, length);
        if (!Number.isSafeInteger(length) ||
            length < 0 ||
            address + BigInt(length) > region.start + BigInt(region.sizeBytes)) {
            const what = `${region.name}, ${region.sizeBytes} bytes at ${hex64(region.start)}`;
            throw new InputError(WHERE, undefined, `${length} bytes at ${hex64(address)} are not inside ${what}`);
        }
        return block;
    }
    /** @throws InputError as Machine.patchText */
    patchText(address, bytes) {
        const end = address + BigInt(bytes.length);
        for (let at = address; at < end;) {
            const region = this.regionAt(kaddr(at));
            if (region?.perms !== 'rx') {
                const what = region === undefined ? 'nothing is mapped there' : `${region.name} is not text`;
                throw new InputError(WHERE, undefined, `cannot patch ${bytes.length} bytes at ${hex64(address)}: ${what}`);
            }
            at = region.start + BigInt(region.sizeBytes);
        }
        if (bytes.length > 0)
            this.space.pokeText(address, bytes);
    }
    save() {
        const parts = [this.space, this.percpu, this.#slab, ...this.#areas].map((part) => part.save());
        const mapped = new Map(this.#mapped);
        const freedText = this.#freedText;
        const freedData = this.#freedData;
        const nextVmalloc = this.#nextVmalloc;
        return () => {
            for (const restore of parts)
                restore();
            this.#mapped = new Map(mapped);
            this.#freedText = freedText;
            this.#freedData = freedData;
            this.#nextVmalloc = nextVmalloc;
        };
    }
}
function notMapped(address, length) {
    return new InputError(WHERE, undefined, `${length} bytes at ${hex64(address)} are not mapped`);
}
function refuseText(block, address) {
    if (block.perms === 'rx') {
        throw new InputError(WHERE, undefined, `${hex64(address)} is text: it changes through patchText only`);
    }
}
//# sourceMappingURL=memory.js.map