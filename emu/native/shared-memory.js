/*
 * The memory of a machine: a file in memory that the host and the child both map. The slots (control-block.ts)
 * come first, then a block for each piece of guest memory.
 */
import { closeSync, ftruncateSync } from 'node:fs';
import koffi from 'koffi';
import { NR_SLOTS, SLOT_BYTES } from './control-block.js';
import { mapShared, memfdCreate, punchHole, unmapShared } from './host.js';
const SLOTS_BYTES = NR_SLOTS * SLOT_BYTES;
export class NativeBlock {
    bytes;
    /** Where in the file. */
    offset;
    lanes;
    usedBytes;
    constructor(bytes, offset, lanes, usedBytes) {
        this.bytes = bytes;
        this.offset = offset;
        this.lanes = lanes;
        this.usedBytes = usedBytes;
    }
}
export class SharedMemory {
    fd;
    /** The host's address of the slots. */
    slots;
    slotsBuffer;
    #end = SLOTS_BYTES;
    /** Offsets of what was given back, by size. */
    #free = new Map();
    /** Memory goes when no view of it is left: views of a closed machine are harmless. */
    #collected;
    #open = true;
    /** @throws InputError when the host refuses */
    constructor() {
        this.#collected = new FinalizationRegistry((extent) => this.#giveBack(extent));
        this.fd = memfdCreate('tramplab-guest');
        ftruncateSync(this.fd, SLOTS_BYTES);
        this.slots = mapShared(this.fd, 0, SLOTS_BYTES);
        this.slotsBuffer = this.#view({ offset: 0, pointer: this.slots, sizeBytes: SLOTS_BYTES });
    }
    /** Zeroed memory, whole pages. @throws InputError when the host refuses */
    alloc(sizeBytes, lanes, usedBytes) {
        const offset = this.#free.get(sizeBytes)?.pop() ?? this.#grow(sizeBytes);
        const pointer = mapShared(this.fd, offset, sizeBytes);
        const buffer = this.#view({ offset, pointer, sizeBytes });
        return new NativeBlock(new Uint8Array(buffer), offset, lanes, usedBytes);
    }
    #grow(sizeBytes) {
        const offset = this.#end;
        ftruncateSync(this.fd, offset + sizeBytes);
        this.#end += sizeBytes;
        return offset;
    }
    #view(extent) {
        const buffer = koffi.view(extent.pointer, extent.sizeBytes);
        this.#collected.register(buffer, extent);
        return buffer;
    }
    #giveBack({ offset, pointer, sizeBytes }) {
        unmapShared(pointer, sizeBytes);
        if (!this.#open)
            return;
        punchHole(this.fd, offset, sizeBytes);
        const free = this.#free.get(sizeBytes) ?? [];
        free.push(offset);
        this.#free.set(sizeBytes, free);
    }
    close() {
        if (!this.#open)
            return;
        this.#open = false;
        closeSync(this.fd);
    }
}
//# sourceMappingURL=shared-memory.js.map