/*
 * The API of unicorn.js, offered by the native library through koffi. It lets the conformance suite run
 * OUR ADAPTER for unicorn.js where that package is not installed. It says nothing about the
 * WebAssembly build itself: that is tested only where the package, or TRAMPLAB_UNICORN_JS, is there.
 */

import koffi, { type TypeObject } from 'koffi';
import { loadUnicorn, openUnicorn } from '../../emu/unicorn/library.ts';
import type {
  HookCallback,
  UnicornJs,
  UnicornJsFactory,
  UnicornJsModule,
} from '../../emu/unicorn-js/package.ts';

const HOOK_INTR = 1;
const HOOK_INSN = 2;
const HOOK_CODE = 4;
const HOOKS_EVENT_MEM = 0x3f0;
const CTL_TB_REMOVE_CACHE = 0x4800_0009;

type Callback = (...args: unknown[]) => unknown;

/** Prototypes by kind of hook. */
const prototypes = {
  code: koffi.proto('void (uintptr_t uc, int64_t address, uint32_t size, uintptr_t data)'),
  interrupt: koffi.proto('void (uintptr_t uc, uint32_t vector, uintptr_t data)'),
  insn: koffi.proto('void (uintptr_t uc, uintptr_t data)'),
  event: koffi.proto(
    'bool (uintptr_t uc, int type, int64_t address, int size, int64_t value, uintptr_t data)',
  ),
  access: koffi.proto(
    'void (uintptr_t uc, int type, int64_t address, int size, int64_t value, uintptr_t data)',
  ),
};

const library = openUnicorn();

const native = {
  uc_mem_map: library.func('int uc_mem_map(uintptr_t uc, int64_t address, size_t size, uint32_t perms)'),
  uc_mem_read: library.func(
    'int uc_mem_read(uintptr_t uc, int64_t address, _Out_ uint8_t *bytes, size_t size)',
  ),
  uc_mem_write: library.func(
    'int uc_mem_write(uintptr_t uc, int64_t address, const uint8_t *bytes, size_t size)',
  ),
  uc_reg_read: library.func('int uc_reg_read(uintptr_t uc, int id, _Out_ int64_t *value)'),
  uc_reg_write: library.func('int uc_reg_write(uintptr_t uc, int id, const int64_t *value)'),
};

class StandIn implements UnicornJs {
  readonly #uc: number;
  readonly #callbacks: bigint[] = [];

  constructor(arch: number, mode: number) {
    const out = new BigUint64Array(1);
    check('uc_open', loadUnicorn().uc_open(arch, mode, Number(koffi.address(out.buffer))));
    this.#uc = Number(out[0]);
  }

  mem_map(address: bigint, size: number, perms: number): void {
    check('uc_mem_map', native.uc_mem_map(this.#uc, signed(address), size, perms));
  }

  mem_unmap(address: bigint, size: number): void {
    check('uc_mem_unmap', loadUnicorn().uc_mem_unmap(this.#uc, signed(address), size));
  }

  mem_read(address: bigint, size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    check('uc_mem_read', native.uc_mem_read(this.#uc, signed(address), bytes, size));
    return bytes;
  }

  mem_write(address: bigint, bytes: Uint8Array): void {
    check('uc_mem_write', native.uc_mem_write(this.#uc, signed(address), bytes, bytes.length));
  }

  reg_read_i64(id: number): bigint {
    const value = new BigInt64Array(1);
    check('uc_reg_read', native.uc_reg_read(this.#uc, id, value));
    return value[0] as bigint;
  }

  reg_write_i64(id: number, value: bigint): void {
    check('uc_reg_write', native.uc_reg_write(this.#uc, id, BigInt64Array.of(signed(value))));
  }

  emu_start(begin: bigint, until: bigint, timeout: number, count: number): void {
    check('uc_emu_start', loadUnicorn().uc_emu_start(this.#uc, signed(begin), signed(until), timeout, count));
  }

  emu_stop(): void {
    loadUnicorn().uc_emu_stop(this.#uc);
  }

  hook_add(type: number, callback: HookCallback, _data?: unknown, begin = 1, end = 0, insn = 0): unknown {
    const call = callback as unknown as Callback;
    const [prototype, wrapped] = this.#wrap(type, call);
    const registered = koffi.register(wrapped, koffi.pointer(prototype));
    this.#callbacks.push(registered);
    const out = new BigUint64Array(1);
    const { uc_hook_add } = loadUnicorn();
    const outPointer = Number(koffi.address(out.buffer));
    check('uc_hook_add', uc_hook_add(this.#uc, outPointer, type, Number(registered), 0, begin, end, insn));
    return out[0];
  }

  /** 64-bit arguments arrive as bigints, whatever their size, as WebAssembly gives them. */
  #wrap(type: number, call: Callback): [TypeObject, Callback] {
    if (type === HOOK_CODE) {
      return [prototypes.code, (_uc, address, size) => call(this, BigInt(address as number), size)];
    }
    if (type === HOOK_INTR) return [prototypes.interrupt, (_uc, vector) => call(this, vector)];
    if (type === HOOK_INSN) return [prototypes.insn, () => call(this)];
    const isEvent = (type & HOOKS_EVENT_MEM) !== 0;
    return [
      isEvent ? prototypes.event : prototypes.access,
      (_uc, memType, address, size, value) =>
        call(this, memType, BigInt(address as number), size, BigInt(value as number)),
    ];
  }

  context_alloc(): number {
    const out = new BigUint64Array(1);
    check('uc_context_alloc', loadUnicorn().uc_context_alloc(this.#uc, Number(koffi.address(out.buffer))));
    return Number(out[0]);
  }

  context_free(context: number): void {
    check('uc_context_free', loadUnicorn().uc_context_free(context));
  }

  context_save(context: number): void {
    check('uc_context_save', loadUnicorn().uc_context_save(this.#uc, context));
  }

  context_restore(context: number): void {
    check('uc_context_restore', loadUnicorn().uc_context_restore(this.#uc, context));
  }

  ctl_remove_cache(start: bigint, end: bigint): void {
    check('uc_ctl', loadUnicorn().uc_ctl(this.#uc, CTL_TB_REMOVE_CACHE, signed(start), signed(end)));
  }

  /** The native library of 2.0.1 knows no TLB modes and needs none. */
  ctl_tlb_mode(_mode: number): void {}

  close(): void {
    check('uc_close', loadUnicorn().uc_close(this.#uc));
    for (const callback of this.#callbacks) koffi.unregister(callback);
  }
}

export const standInFactory: UnicornJsFactory = async (): Promise<UnicornJsModule> => ({ Unicorn: StandIn });

function signed(value: bigint): bigint {
  return BigInt.asIntN(64, value);
}

/** unicorn.js throws texts; the adapter must cope with that, so this does the same. */
function check(name: string, error: number): void {
  // biome-ignore lint/style/useThrowOnlyError: as the package behaves
  if (error !== 0) throw `Unicorn.js: Function ${name} failed with code ${error}:\n`;
}
