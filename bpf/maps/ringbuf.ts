/*
 * A ring buffer, which all CPUs write and one reader reads.
 *
 *   data   | header | record   | header | record | ...
 *            u32 length, bit 31: not ready, bit 30: given up
 *            u32 pages from the buffer's start; nobody asks for it here
 *
 * Positions only grow; a record lies at its position modulo the size. The kernel maps the pages twice in a row, so
 * that a record may run over the end. Here there is as much memory again behind the end: whoever writes a record and
 * whoever reads it begin at the same place, and so find the same bytes.
 *
 * Kernel: kernel/bpf/ringbuf.c
 */

import { addrAdd, Errno, type Kaddr } from '../../lib/index.ts';
import { ACCESS_FLAGS, BpfMap, demand, MAX_MAP_BYTES, type MapHome, type MapSpec, tooLarge } from './map.ts';

const HEADER_BYTES = 8;
const BUSY = 0x8000_0000;
const DISCARD = 0x4000_0000;
const LENGTH = 0x3fff_ffff;
const PAGE = 4096;
/** Kernel: RINGBUF_MAX_RECORD_SZ */
const MAX_RECORD_BYTES = 0x3fff_ffff;

/** What bpf_ringbuf_query answers. */
const QUERIES: readonly ((ring: RingbufMap) => number)[] = [
  (ring) => ring.availableBytes,
  (ring) => ring.spec.maxEntries,
  (ring) => ring.consumerPosition,
  (ring) => ring.producerPosition,
];

export class RingbufMap extends BpfMap {
  consumerPosition = 0;
  producerPosition = 0;
  /** Told whenever a record is ready. */
  readonly listeners: Set<() => void> = new Set();
  readonly #data: Kaddr;

  constructor(home: MapHome, spec: MapSpec) {
    demand(spec.keyBytes === 0 && spec.valueBytes === 0, spec, 'a ring buffer has neither keys nor values');
    const wholePages = spec.maxEntries > 0 && spec.maxEntries % PAGE === 0;
    demand(
      wholePages && Number.isInteger(Math.log2(spec.maxEntries)),
      spec,
      `${spec.maxEntries} bytes; wanted a power of two, in pages of ${PAGE}`,
    );
    demand((spec.flags & ~ACCESS_FLAGS) === 0, spec, `flags 0x${spec.flags.toString(16)}`);
    if (spec.maxEntries > MAX_MAP_BYTES / 2) throw tooLarge(spec, spec.maxEntries);
    super(home, spec);
    try {
      this.#data = home.machine.memory.kmalloc(2 * spec.maxEntries, `data of ${spec.name}`);
    } catch (error) {
      super.free();
      throw error;
    }
  }

  #at(position: number): Kaddr {
    return addrAdd(this.#data, position % this.spec.maxEntries);
  }

  get availableBytes(): number {
    return this.producerPosition - this.consumerPosition;
  }

  query(what: bigint): number {
    return QUERIES[Number(what)]?.(this) ?? 0;
  }

  /** Room for a record; undefined when there is none. Kernel: __bpf_ringbuf_reserve */
  reserve(sizeBytes: bigint): Kaddr | undefined {
    if (sizeBytes > BigInt(MAX_RECORD_BYTES)) return undefined;
    const whole = Math.ceil((Number(sizeBytes) + HEADER_BYTES) / 8) * 8;
    const end = this.producerPosition + whole;
    // One byte less than the buffer has: a full one would look empty.
    if (whole > this.spec.maxEntries || end - this.consumerPosition > this.spec.maxEntries - 1)
      return undefined;
    const header = this.#at(this.producerPosition);
    this.home.machine.memory.writeU32(header, (Number(sizeBytes) | BUSY) >>> 0);
    this.producerPosition = end;
    return addrAdd(header, HEADER_BYTES);
  }

  /** Makes a record ready, or gives it up. Kernel: bpf_ringbuf_commit */
  commit(record: Kaddr, discards: boolean): void {
    const { memory } = this.home.machine;
    const header = addrAdd(record, -HEADER_BYTES);
    const length = memory.readU32(header) & LENGTH;
    memory.writeU32(header, (length | (discards ? DISCARD : 0)) >>> 0);
    for (const tell of this.listeners) tell();
  }

  /** Kernel: bpf_ringbuf_output */
  output(data: Uint8Array, flags: bigint): number {
    if (flags > 3n) return -Errno.EINVAL;
    const record = this.reserve(BigInt(data.length));
    if (record === undefined) return -Errno.EAGAIN;
    if (data.length > 0) this.#bytes(record, data.length).set(data);
    this.commit(record, false);
    return 0;
  }

  #bytes(record: Kaddr, length: number): Uint8Array {
    return this.home.machine.memory.bytes(record, length);
  }

  /** Takes the records that are ready, up to the first that is not. libbpf: ringbuf_process_ring */
  consume(): Uint8Array[] {
    const { memory } = this.home.machine;
    const records: Uint8Array[] = [];
    while (this.consumerPosition < this.producerPosition) {
      const header = this.#at(this.consumerPosition);
      const word = memory.readU32(header);
      if ((word & BUSY) !== 0) break;
      const length = word & LENGTH;
      if ((word & DISCARD) === 0) records.push(this.#bytes(addrAdd(header, HEADER_BYTES), length).slice());
      this.consumerPosition += Math.ceil((length + HEADER_BYTES) / 8) * 8;
    }
    return records;
  }

  /** Whether an address is that of a record of this buffer. */
  holds(record: Kaddr): boolean {
    return record >= this.#data && record < addrAdd(this.#data, 2 * this.spec.maxEntries);
  }

  override update(): number {
    return -Errno.ENOTSUPP;
  }

  override delete(): number {
    return -Errno.ENOTSUPP;
  }

  override nextKey(): number {
    return -Errno.ENOTSUPP;
  }

  override free(): void {
    this.home.machine.memory.kfree(this.#data);
    super.free();
  }
}
