import { BPF_B, BPF_DW, BPF_H, BPF_W } from '../../jit/index.ts';
import { hex64 } from '../../lib/index.ts';

/** Bytes of a load or store, by the size bits of its opcode. */
export const SIZES: Readonly<Record<number, number>> = { [BPF_B]: 1, [BPF_H]: 2, [BPF_W]: 4, [BPF_DW]: 8 };

/** An access to what is not there, or may not be written. */
export class MemoryFault extends Error {
  readonly access: 'read' | 'write';
  readonly address: bigint;

  constructor(access: 'read' | 'write', address: bigint, sizeBytes: number) {
    super(`${access} of ${sizeBytes} bytes at ${hex64(address)}, where there is no memory`);
    this.access = access;
    this.address = address;
  }
}

/** What loads and stores reach. Values are unsigned and little-endian. */
export interface BpfMemory {
  /** @throws MemoryFault */
  read(address: bigint, sizeBytes: number): bigint;
  /** @throws MemoryFault */
  write(address: bigint, sizeBytes: number, value: bigint): void;
}

/** Blocks of bytes at addresses of their own. */
export class FlatMemory implements BpfMemory {
  readonly #blocks: { readonly start: bigint; readonly view: DataView }[] = [];

  /** Shows a block at an address; blocks must not overlap. */
  map(start: bigint, bytes: Uint8Array): void {
    this.#blocks.push({ start, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength) });
  }

  read(address: bigint, sizeBytes: number): bigint {
    const { view, at } = this.#find('read', address, sizeBytes);
    switch (sizeBytes) {
      case 1:
        return BigInt(view.getUint8(at));
      case 2:
        return BigInt(view.getUint16(at, true));
      case 4:
        return BigInt(view.getUint32(at, true));
      default:
        return view.getBigUint64(at, true);
    }
  }

  write(address: bigint, sizeBytes: number, value: bigint): void {
    const { view, at } = this.#find('write', address, sizeBytes);
    switch (sizeBytes) {
      case 1:
        view.setUint8(at, Number(value));
        break;
      case 2:
        view.setUint16(at, Number(value), true);
        break;
      case 4:
        view.setUint32(at, Number(value), true);
        break;
      default:
        view.setBigUint64(at, value, true);
    }
  }

  #find(access: 'read' | 'write', address: bigint, sizeBytes: number): { view: DataView; at: number } {
    for (const { start, view } of this.#blocks) {
      const at = address - start;
      if (at >= 0n && at + BigInt(sizeBytes) <= BigInt(view.byteLength)) return { view, at: Number(at) };
    }
    throw new MemoryFault(access, address, sizeBytes);
  }
}
