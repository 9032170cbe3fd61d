/*
 * The engine over the native libunicorn: one instance per vCPU, all over the same host memory.
 */

import koffi from 'koffi';
import { Bug, type Kaddr, kaddr } from '../../lib/index.ts';
import type { Perms, RegisterName } from '../api.ts';
import {
  type Engine,
  type EngineContext,
  type EngineCpu,
  type EngineStop,
  type HostBlock,
  type MemoryStop,
  PAGE_SIZE,
} from '../engine.ts';
import {
  ARG0_INDEX,
  ControlBlock,
  GS_BASE_INDEX,
  Offset,
  RAX_INDEX,
  RFLAGS_INDEX,
  RIP_INDEX,
  RSP_INDEX,
  registerIndex,
  StopCode,
} from './control-block.ts';
import { type Hooks, installHooks, makeHooks } from './hooks.ts';
import { type Int64, loadUnicorn, type Pointer, type UnicornLibrary } from './library.ts';

const ARCH_X86 = 4;
const MODE_64 = 8;
const PROT: Readonly<Record<Perms, number>> = { r: 1, rw: 3, rx: 5 };

/** uc_ctl: control number, number of arguments << 26, direction (write: 1) << 30. */
const CTL_TB_REMOVE_CACHE = 0x4800_0009;
const CTL_TLB_TYPE = 0x4400_000c;
const TLB_VIRTUAL = 1;

/** uc_err, as far as a run can end with it. */
const UcErr = {
  OK: 0,
  READ_UNMAPPED: 6,
  WRITE_UNMAPPED: 7,
  FETCH_UNMAPPED: 8,
  INSN_INVALID: 10,
  WRITE_PROT: 12,
  READ_PROT: 13,
  FETCH_PROT: 14,
  EXCEPTION: 21,
} as const;

/** uc_mem_type of the accesses that fail. */
const MEMORY_STOPS: ReadonlyMap<number, Pick<MemoryStop, 'access' | 'cause'>> = new Map([
  [19, { access: 'read', cause: 'unmapped' }],
  [20, { access: 'write', cause: 'unmapped' }],
  [21, { access: 'fetch', cause: 'unmapped' }],
  [22, { access: 'write', cause: 'protected' }],
  [23, { access: 'read', cause: 'protected' }],
  [24, { access: 'fetch', cause: 'protected' }],
]);

/** An address that no instruction has: it is not canonical. */
const NOWHERE = 0x8000_0000_0000_0000n;

/** rip among the 32-bit words of the control block. */
const RIP_WORD = (Offset.values + 8 * RIP_INDEX) / 4;

/** Bit 1 is always set; interrupts, direction and all arithmetic flags clear. */
const CLEAR_RFLAGS = 2n;

export interface UnicornOptions {
  readonly cpus: number;
  /** `javascript` is for hosts without native hooks, and for testing that they agree. */
  readonly hooks?: 'native' | 'javascript';
}

/** @throws InputError when libunicorn is not there. */
export function createUnicornEngine(options: UnicornOptions): Engine {
  const library = loadUnicorn();
  const hooks = makeHooks(library, options.hooks ?? 'native');
  const cpus: UnicornCpu[] = [];
  for (let id = 0; id < options.cpus; id++) cpus.push(new UnicornCpu(library, hooks));
  return new UnicornEngine(library, cpus);
}

/** Page-aligned memory inside a JavaScript buffer: the garbage collector gives it back, views stay safe. */
class UnicornBlock implements HostBlock {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly pointer: Pointer;
  readonly lanes: number;
  usedBytes: number;

  constructor(sizeBytes: number, lanes: number, usedBytes: number) {
    const memory = new ArrayBuffer(sizeBytes + PAGE_SIZE);
    const at = Number(koffi.address(memory));
    const skip = -at & (PAGE_SIZE - 1);
    this.pointer = at + skip;
    this.bytes = new Uint8Array(memory, skip, sizeBytes);
    this.lanes = lanes;
    this.usedBytes = usedBytes;
  }
}

class UnicornEngine implements Engine {
  readonly name: string;
  readonly cpus: readonly UnicornCpu[];
  readonly #library: UnicornLibrary;
  /** Mapped blocks are used by native code: nothing else keeps them from being collected. */
  readonly #mapped: Set<HostBlock> = new Set();

  constructor(library: UnicornLibrary, cpus: readonly UnicornCpu[]) {
    this.name = `unicorn ${library.version}`;
    this.cpus = cpus;
    this.#library = library;
  }

  allocBlock(sizeBytes: number, use: { lanes?: number; usedBytes?: number } = {}): HostBlock {
    const lanes = use.lanes ?? 1;
    return new UnicornBlock(sizeBytes, lanes, use.usedBytes ?? sizeBytes / lanes);
  }

  map(address: Kaddr, block: HostBlock, perms: Perms): void {
    if (!(block instanceof UnicornBlock)) throw new Bug('a block of another engine');
    for (const { uc } of this.cpus) {
      check('uc_mem_map_ptr')(
        this.#library.uc_mem_map_ptr(uc, int64(address), block.bytes.length, PROT[perms], block.pointer),
      );
    }
    this.#mapped.add(block);
  }

  unmap(address: Kaddr, block: HostBlock): void {
    // Unmapping alone leaves translations behind that come alive when the address is mapped again.
    this.textChanged(address, block.bytes.length);
    for (const { uc } of this.cpus) {
      check('uc_mem_unmap')(this.#library.uc_mem_unmap(uc, int64(address), block.bytes.length));
    }
    this.#mapped.delete(block);
  }

  textChanged(address: Kaddr, lengthBytes: number): void {
    const start = int64(address);
    const end = int64(address + BigInt(lengthBytes));
    for (const { uc } of this.cpus) {
      check('uc_ctl')(this.#library.uc_ctl(uc, CTL_TB_REMOVE_CACHE, start, end));
    }
  }

  close(): void {
    for (const { uc } of this.cpus) this.#library.uc_close(uc);
    this.#mapped.clear();
  }
}

class UnicornCpu implements EngineCpu {
  readonly uc: Pointer;
  executed: number = 0;
  #stopRip: Kaddr | undefined;
  readonly #library: UnicornLibrary;
  readonly #block: ControlBlock;
  readonly #ids: Pointer;
  readonly #pointers: Pointer;
  readonly #contextHeader: Uint8Array<ArrayBuffer>;
  /** The state after reset, to go back to. */
  readonly #pristine: EngineContext;
  #gsBase: Kaddr = kaddr(0n);
  /**
   * Whether a run ended in a fault since the state was last known good. An exception that nobody handles
   * stays pending inside the CPU, and the next one would be a double fault.
   */
  #tainted: boolean = false;

  constructor(library: UnicornLibrary, hooks: Hooks) {
    this.#library = library;
    const out = new BigUint64Array(1);
    const outPointer = Number(koffi.address(out.buffer));
    check('uc_open')(library.uc_open(ARCH_X86, MODE_64, outPointer));
    this.uc = Number(out[0]);
    // From 2.0.2 on, without this, kernel addresses are cut to the physical width; before, it is unknown.
    library.uc_ctl(this.uc, CTL_TLB_TYPE, TLB_VIRTUAL, 0);
    this.#block = new ControlBlock(library.emuStopPointer);
    this.#block.stopAt = NOWHERE;
    this.#ids = this.#block.pointer + Offset.ids;
    this.#pointers = this.#block.pointer + Offset.pointers;
    installHooks(library, this.uc, hooks, this.#block.pointer);

    // A fresh context is its sizes, which every context of ours starts from.
    check('uc_context_alloc')(library.uc_context_alloc(this.uc, outPointer));
    const context = Number(out[0]);
    const size = library.uc_context_size(this.uc);
    this.#contextHeader = new Uint8Array(koffi.view(context, size)).slice();
    library.uc_context_free(context);
    this.#pristine = this.saveContext();
  }

  load(rip: Kaddr, rsp: Kaddr, args: readonly bigint[]): void {
    if (this.#tainted) {
      this.restoreContext(this.#pristine);
      this.setGsBase(this.#gsBase);
    }
    const { values } = this.#block;
    values[RIP_INDEX] = rip;
    values[RSP_INDEX] = rsp;
    values[RFLAGS_INDEX] = CLEAR_RFLAGS;
    let count = ARG0_INDEX;
    for (const arg of args) values[count++] = arg;
    // Not rip: uc_emu_start sets it, and writing it costs a stop of its own.
    this.#library.uc_reg_write_batch(
      this.uc,
      this.#ids + 4 * RSP_INDEX,
      this.#pointers + 8 * RSP_INDEX,
      count - RSP_INDEX,
    );
  }

  run(budget: number, stopAt?: Kaddr): EngineStop {
    const block = this.#block;
    const { words } = block;
    block.budget = budget;
    if (stopAt !== undefined) block.stopAt = stopAt;

    // rip as a number where that is exact: every canonical address. See library.ts.
    const high = (words[RIP_WORD + 1] as number) | 0;
    const canonical = high >= -0x20_0000 && high < 0x20_0000;
    const begin = canonical
      ? high * 2 ** 32 + (words[RIP_WORD] as number)
      : int64(block.values[RIP_INDEX] as bigint);
    const error = this.#library.uc_emu_start(this.uc, begin, 0, 0, 0);
    this.#readBack();

    if (stopAt !== undefined) block.stopAt = NOWHERE;
    const started = budget - block.budget;
    if (error === UcErr.OK && words[Offset.stopped / 4] === StopCode.none) {
      this.executed = started - 1;
      this.#stopRip = undefined;
      return 'halted';
    }
    return this.#explain(error, budget, started);
  }

  /** What ended a run, other than hlt: hooks say so in the control block, the rest is in the error. */
  #explain(error: number, budget: number, started: number): EngineStop {
    const block = this.#block;
    const stopped = block.words[Offset.stopped / 4];
    block.words[Offset.stopped / 4] = StopCode.none;
    this.executed = started - 1;
    this.#stopRip = this.rip;
    switch (stopped) {
      case StopCode.budget:
        return 'budget';
      case StopCode.stopAt:
        this.executed = started;
        return 'stop-at';
    }
    this.#tainted = true;
    if (stopped !== StopCode.none) {
      this.executed = budget - block.eventBudget - 1;
      this.#stopRip = kaddr(block.eventRip);
      return stopped === StopCode.exception
        ? 'exception'
        : stopped === StopCode.syscall
          ? 'syscall'
          : 'port-io';
    }
    switch (error) {
      case UcErr.FETCH_UNMAPPED:
      case UcErr.FETCH_PROT:
        // The hook never ran for an instruction that could not be fetched.
        this.executed = started;
        return 'memory';
      case UcErr.READ_UNMAPPED:
      case UcErr.READ_PROT:
      case UcErr.WRITE_UNMAPPED:
      case UcErr.WRITE_PROT:
        return 'memory';
      case UcErr.INSN_INVALID:
        return 'invalid-opcode';
      default:
        throw new Bug(`uc_emu_start: error ${error}`);
    }
  }

  /** rax and rip. */
  #readBack(): void {
    this.#library.uc_reg_read_batch(this.uc, this.#ids, this.#pointers, 2);
  }

  get rax(): bigint {
    return this.#block.values[RAX_INDEX] as bigint;
  }

  get rip(): Kaddr {
    return this.#block.values[RIP_INDEX] as Kaddr;
  }

  get stopRip(): Kaddr {
    return this.#stopRip ?? kaddr(this.#block.lastRip);
  }

  get memoryStop(): MemoryStop {
    const { words, memAddress } = this.#block;
    const what = MEMORY_STOPS.get(words[Offset.memType / 4] as number);
    if (what === undefined) throw new Bug(`memory hook: type ${words[Offset.memType / 4]}`);
    return { ...what, address: kaddr(memAddress), sizeBytes: words[Offset.memSize / 4] as number };
  }

  get vector(): number {
    return this.#block.words[Offset.vector / 4] as number;
  }

  get(name: RegisterName): bigint {
    if (name === 'rip') return this.rip;
    const index = indexOf(name);
    this.#library.uc_reg_read_batch(this.uc, this.#ids + 4 * index, this.#pointers + 8 * index, 1);
    return this.#block.values[index] as bigint;
  }

  set(name: RegisterName, value: bigint): void {
    if (name === 'rip') this.#block.values[RIP_INDEX] = value;
    else this.#write(indexOf(name), value);
  }

  setGsBase(base: Kaddr): void {
    this.#gsBase = base;
    this.#write(GS_BASE_INDEX, base);
  }

  #write(index: number, value: bigint): void {
    this.#block.values[index] = value;
    this.#library.uc_reg_write_batch(this.uc, this.#ids + 4 * index, this.#pointers + 8 * index, 1);
  }

  saveContext(): EngineContext {
    const context = this.#contextHeader.slice();
    check('uc_context_save')(this.#library.uc_context_save(this.uc, Number(koffi.address(context.buffer))));
    return { engineContext: { context, rip: this.rip, tainted: this.#tainted } satisfies SavedContext };
  }

  restoreContext(context: EngineContext): void {
    const saved = context.engineContext as SavedContext;
    check('uc_context_restore')(
      this.#library.uc_context_restore(this.uc, Number(koffi.address(saved.context.buffer))),
    );
    this.#readBack();
    this.#tainted = saved.tainted;
    this.#block.values[RIP_INDEX] = saved.rip;
  }
}

/** A uc_context in memory of ours. */
interface SavedContext {
  readonly rip: Kaddr;
  readonly context: Uint8Array<ArrayBuffer>;
  readonly tainted: boolean;
}

function indexOf(name: RegisterName): number {
  const index = registerIndex.get(name);
  if (index === undefined) throw new Bug(`no register ${name}`);
  return index;
}

/** A canonical address as an exact number, any other as a bigint. */
function int64(address: bigint): Int64 {
  const signed = BigInt.asIntN(64, address);
  return signed >= -(2n ** 53n) && signed < 2n ** 53n ? Number(signed) : signed;
}

/** For calls that fail only when we misuse them. */
function check(call: string): (error: number) => void {
  return (error) => {
    if (error !== UcErr.OK) throw new Bug(`${call}: error ${error}`);
  };
}
