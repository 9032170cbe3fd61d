/*
 * Guest memory as the kernel reaches it for programs: what is not there is an error to be told, not an exception of
 * the host's.
 */

import type { Machine } from '../../emu/index.ts';
import { addrAdd, InputError, type Kaddr, kaddr } from '../../lib/index.ts';
import { type BpfMemory, MemoryFault } from '../interp/memory.ts';

export class GuestMemoryView implements BpfMemory {
  readonly #machine: Machine;
  /** User space is below; see layout.ts of emu/. */
  readonly #userEnd: bigint;

  constructor(machine: Machine) {
    this.#machine = machine;
    this.#userEnd = userEnd(machine);
  }

  /** Whether an address is one of user space. Kernel: access_ok */
  isUser(address: bigint): boolean {
    return address < this.#userEnd;
  }

  /** A copy of bytes, wherever they lie. @throws MemoryFault at the first that is not there */
  copy(address: bigint, sizeBytes: number): Uint8Array {
    return this.#whole(address, sizeBytes)?.slice() ?? this.#piecewise(address, sizeBytes);
  }

  /** A live view where one object holds all of it; undefined where not. */
  #whole(address: bigint, sizeBytes: number): Uint8Array | undefined {
    const { memory } = this.#machine;
    const at = kaddr(address);
    const region = memory.regionAt(at);
    if (region === undefined || Number(at - region.start) + sizeBytes > region.sizeBytes) return undefined;
    return memory.bytes(at, sizeBytes);
  }

  #piecewise(address: bigint, sizeBytes: number): Uint8Array {
    return Uint8Array.from({ length: sizeBytes }, (_, i) => Number(this.read(address + BigInt(i), 1)));
  }

  /** @throws MemoryFault */
  store(address: bigint, bytes: Uint8Array): void {
    const whole = this.#writable(address) ? this.#whole(address, bytes.length) : undefined;
    if (whole !== undefined) whole.set(bytes);
    else for (const [i, byte] of bytes.entries()) this.write(address + BigInt(i), 1, BigInt(byte));
  }

  #writable(address: bigint): boolean {
    return this.#machine.memory.regionAt(kaddr(address))?.perms === 'rw';
  }

  /** Text up to its 0, which is left out, or `maxBytes` of it. @throws MemoryFault */
  text(address: bigint, maxBytes: number): Uint8Array {
    const bytes: number[] = [];
    while (bytes.length < maxBytes) {
      const byte = Number(this.read(address + BigInt(bytes.length), 1));
      if (byte === 0) break;
      bytes.push(byte);
    }
    return Uint8Array.from(bytes);
  }

  read(address: bigint, sizeBytes: number): bigint {
    const { memory } = this.#machine;
    const at = kaddr(address);
    try {
      switch (sizeBytes) {
        case 1:
          return BigInt(memory.readU8(at));
        case 2:
          return BigInt(memory.readU16(at));
        case 4:
          return BigInt(memory.readU32(at));
        default:
          return memory.readU64(at);
      }
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      throw new MemoryFault('read', at, sizeBytes);
    }
  }

  write(address: bigint, sizeBytes: number, value: bigint): void {
    const { memory } = this.#machine;
    const at = kaddr(address);
    if (!this.#writable(at)) throw new MemoryFault('write', at, sizeBytes);
    try {
      for (let i = 0; i < sizeBytes; i++)
        memory.writeU8(addrAdd(at, i), Number((value >> BigInt(8 * i)) & 0xffn));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      throw new MemoryFault('write', at, sizeBytes);
    }
  }
}

/** The first address that is not of user space. In the layout `user` it is what lies below the kernel's areas. */
export function userEnd({ layout }: Machine): Kaddr {
  return layout.name === 'kernel' ? kaddr(0x7fff_ffff_f000n) : layout.kernelText.start;
}
