/*
 * The engine over the native libunicorn: one instance per vCPU, all over the same host memory.
 */

import koffi from 'koffi';
import { Bug, InputError, type Kaddr, kaddr } from '../../lib/index.ts';
import type { AccessEvent, Perms, RegisterName } from '../api.ts';
import {
  type Engine,
  type EngineContext,
  type EngineCpu,
  type EngineStop,
  type HostBlock,
  type MemoryStop,
  NULL_FETCH,
  PAGE_SIZE,
} from '../engine.ts';
import { ABORTED, type EmuStart, guardedEmuStart } from './abort-guard.ts';
import {
  ARG0_INDEX,
  ControlBlock,
  GS_BASE_INDEX,
  NR_REGISTERS,
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
import { AccessRecorder } from './recorder.ts';

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

/**
 * Unicorn insists on an address to end at. Any but 0 makes each start 0.1 us slower; with 0, a call of a
 * null pointer looks like hlt, which run() tells apart. No text is ever mapped there.
 */
const UNTIL = 0;

/** rip among the 32-bit words of the control block. */
const RIP_WORD = (Offset.values + 8 * RIP_INDEX) / 4;

/**
 * Translations are never given back: libunicorn ends with a segmentation fault when a gigabyte of them is
 * full. So an instance is replaced when this much changed text was run that it may have translated, each change
 * counted as CHANGE_BYTES or more: about 100 MB of translations, and 3 ms for another instance.
 */
const STALE_BYTES = 2 << 20;
const CHANGE_BYTES = 256;
const LARGEST_CHANGE_BYTES = 1024;
/** What is translated along with one instruction at most, on the average. */
const BLOCK_BYTES = 16;

/** Bit 1 is always set; interrupts, direction and all arithmetic flags clear. */
const CLEAR_RFLAGS = 2n;

export interface UnicornOptions {
  readonly cpus: number;
  /** `javascript` is for hosts without native hooks, and for testing that they agree. */
  readonly hooks?: 'native' | 'javascript';
  /** Keep what is executed, read and written; default false. */
  readonly record?: boolean;
}

/** @throws InputError when libunicorn is not there. */
export function createUnicornEngine(options: UnicornOptions): Engine {
  const library = loadUnicorn();
  const home: CpuHome = {
    library,
    hooks: makeHooks(library, options.hooks ?? 'native'),
    emuStart: guardedEmuStart(library),
    mapped: new Map(),
    record: options.record ?? false,
  };
  const cpus: UnicornCpu[] = [];
  for (let id = 0; id < options.cpus; id++) cpus.push(new UnicornCpu(home));
  return new UnicornEngine(home, cpus);
}

/** What the vCPUs of an engine share. */
interface CpuHome {
  readonly library: UnicornLibrary;
  readonly hooks: Hooks;
  readonly emuStart: EmuStart;
  /** Also what keeps mapped memory from being collected while native code uses it. */
  readonly mapped: Map<UnicornBlock, { readonly address: Kaddr; readonly perms: Perms }>;
  readonly record: boolean;
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
  readonly #mapped: CpuHome['mapped'];
  #open: boolean = true;

  constructor(home: CpuHome, cpus: readonly UnicornCpu[]) {
    this.name = `unicorn ${home.library.version}`;
    this.cpus = cpus;
    this.#library = home.library;
    this.#mapped = home.mapped;
  }

  allocBlock(sizeBytes: number, use: { lanes?: number; usedBytes?: number } = {}): HostBlock {
    const lanes = use.lanes ?? 1;
    return new UnicornBlock(sizeBytes, lanes, use.usedBytes ?? sizeBytes / lanes);
  }

  map(address: Kaddr, block: HostBlock, perms: Perms): void {
    const own = ownBlock(block);
    if (!this.#open) return;
    for (const cpu of this.cpus) cpu.map(address, own, perms);
    this.#mapped.set(own, { address, perms });
  }

  unmap(address: Kaddr, block: HostBlock): void {
    if (!this.#open) return;
    // Unmapping alone leaves translations behind that come alive when the address is mapped again.
    this.textChanged(address, block.bytes.length);
    for (const { uc } of this.cpus) {
      check('uc_mem_unmap', this.#library.uc_mem_unmap(uc, int64(address), block.bytes.length));
    }
    this.#mapped.delete(ownBlock(block));
  }

  textChanged(address: Kaddr, lengthBytes: number): void {
    if (!this.#open) return;
    const start = int64(address);
    const end = int64(address + BigInt(lengthBytes));
    for (const cpu of this.cpus) {
      check('uc_ctl', this.#library.uc_ctl(cpu.uc, CTL_TB_REMOVE_CACHE, start, end));
      cpu.textChanged(lengthBytes);
    }
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const { uc } of this.cpus) this.#library.uc_close(uc);
    this.#mapped.clear();
  }
}

class UnicornCpu implements EngineCpu {
  /** The instance; another one after libunicorn gave up on the first. */
  uc: Pointer;
  executed: number = 0;
  #stopRip: Kaddr | undefined;
  /** When the hook did not note it. */
  #memoryStop: MemoryStop | undefined;
  readonly #home: CpuHome;
  readonly #library: UnicornLibrary;
  readonly #emuStart: EmuStart;
  readonly #block: ControlBlock;
  readonly #ids: Pointer;
  readonly #pointers: Pointer;
  readonly #contextHeader: Uint8Array<ArrayBuffer>;
  /** The state after reset, to go back to. */
  readonly #pristine: EngineContext;
  #gsBase: Kaddr = kaddr(0n);
  #recorder: AccessRecorder | undefined;
  /**
   * Whether a run ended in a fault since the state was last known good. An exception that nobody handles
   * stays pending inside the CPU, and the next one would be a double fault.
   */
  #tainted: boolean = false;
  /** Text changed since the last run, which the next one may translate. */
  #changedBytes: number = 0;
  /** Changed text that was run since the instance was opened. */
  #staleBytes: number = 0;

  constructor(home: CpuHome) {
    this.#home = home;
    this.#library = home.library;
    this.#emuStart = home.emuStart;
    this.#block = new ControlBlock(home.library.emuStopPointer);
    this.#block.stopAt = NOWHERE;
    this.#ids = this.#block.pointer + Offset.ids;
    this.#pointers = this.#block.pointer + Offset.pointers;
    this.uc = this.#open();
    this.#contextHeader = contextHeader(home.library, this.uc);
    this.#pristine = this.saveContext();
  }

  /** A new instance with hooks and nothing mapped. */
  #open(): Pointer {
    const library = this.#library;
    const out = new BigUint64Array(1);
    check('uc_open', library.uc_open(ARCH_X86, MODE_64, Number(koffi.address(out.buffer))));
    const uc = Number(out[0]);
    // From 2.0.2 on, without this, kernel addresses are cut to the physical width; before, it is unknown.
    library.uc_ctl(uc, CTL_TLB_TYPE, TLB_VIRTUAL, 0);
    installHooks(library, uc, this.#home.hooks, this.#block.pointer);
    if (this.#recorder !== undefined) this.#recorder.install(library, uc);
    else if (this.#home.record) this.#recorder = new AccessRecorder(library, uc);
    return uc;
  }

  map(address: Kaddr, block: UnicornBlock, perms: Perms): void {
    const size = block.bytes.length;
    check(
      'uc_mem_map_ptr',
      this.#library.uc_mem_map_ptr(this.uc, int64(address), size, PROT[perms], block.pointer),
    );
  }

  /** Text was changed that this vCPU may have translated: see STALE_BYTES. */
  textChanged(lengthBytes: number): void {
    this.#changedBytes += CHANGE_BYTES + Math.min(lengthBytes, LARGEST_CHANGE_BYTES);
    if (this.#staleBytes < STALE_BYTES) return;
    const context = this.saveContext();
    this.#library.uc_close(this.uc);
    this.uc = this.#open();
    this.#mapAll();
    this.restoreContext(context);
    this.#staleBytes = 0;
  }

  #mapAll(): void {
    for (const [block, { address, perms }] of this.#home.mapped) this.map(address, block, perms);
  }

  /** Goes on with a new instance and the registers of the old one, which is not to be entered again. */
  #replaceInstance(): void {
    const { uc_close, uc_reg_read_batch, uc_reg_write_batch } = this.#library;
    const old = this.uc;
    uc_reg_read_batch(old, this.#ids, this.#pointers, NR_REGISTERS);
    uc_close(old);
    this.uc = this.#open();
    this.#mapAll();
    uc_reg_write_batch(this.uc, this.#ids, this.#pointers, NR_REGISTERS);
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
    const error = this.#emuStart(this.uc, begin, UNTIL, 0, 0);
    this.#readBack();

    if (stopAt !== undefined) block.stopAt = NOWHERE;
    const started = budget - block.budget;
    if (this.#changedBytes > 0) {
      // No more is translated than what was run, and the rest of its blocks.
      this.#staleBytes += Math.min(this.#changedBytes, CHANGE_BYTES + BLOCK_BYTES * started);
      this.#changedBytes = 0;
    }
    if (error === UcErr.OK && words[Offset.stopped / 4] === StopCode.none) {
      if (words[RIP_WORD] === UNTIL && words[RIP_WORD + 1] === 0) return this.#nullFetch(started);
      this.executed = started - 1;
      this.#stopRip = undefined;
      return 'halted';
    }
    return this.#explain(error, budget, started);
  }

  #nullFetch(started: number): EngineStop {
    this.executed = started;
    this.#stopRip = NULL_FETCH.address;
    this.#memoryStop = NULL_FETCH;
    return 'memory';
  }

  /** What ended a run, other than hlt: hooks say so in the control block, the rest is in the error. */
  #explain(error: number, budget: number, started: number): EngineStop {
    const block = this.#block;
    const stopped = block.words[Offset.stopped / 4];
    block.words[Offset.stopped / 4] = StopCode.none;
    this.executed = started - 1;
    this.#stopRip = this.rip;
    this.#memoryStop = undefined;
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
      case ABORTED:
        this.#replaceInstance();
        this.executed = started;
        return 'untranslatable';
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
    if (this.#memoryStop !== undefined) return this.#memoryStop;
    const { words, memAddress } = this.#block;
    const what = MEMORY_STOPS.get(words[Offset.memType / 4] as number);
    if (what === undefined) throw new Bug(`memory hook: type ${words[Offset.memType / 4]}`);
    return { ...what, address: kaddr(memAddress), sizeBytes: words[Offset.memSize / 4] as number };
  }

  get vector(): number {
    return this.#block.words[Offset.vector / 4] as number;
  }

  recorded(): readonly AccessEvent[] {
    if (this.#recorder === undefined) {
      throw new InputError('record', undefined, 'the machine was made without `record: true`');
    }
    return this.#recorder.take();
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
    check('uc_context_save', this.#library.uc_context_save(this.uc, Number(koffi.address(context.buffer))));
    return { engineContext: { context, rip: this.rip, tainted: this.#tainted } satisfies SavedContext };
  }

  restoreContext(context: EngineContext): void {
    const saved = context.engineContext as SavedContext;
    const pointer = Number(koffi.address(saved.context.buffer));
    check('uc_context_restore', this.#library.uc_context_restore(this.uc, pointer));
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

/** A fresh context is sizes only, which every context of ours starts from. */
function contextHeader(library: UnicornLibrary, uc: Pointer): Uint8Array<ArrayBuffer> {
  const out = new BigUint64Array(1);
  check('uc_context_alloc', library.uc_context_alloc(uc, Number(koffi.address(out.buffer))));
  const context = Number(out[0]);
  const header = new Uint8Array(koffi.view(context, library.uc_context_size(uc))).slice();
  library.uc_context_free(context);
  return header;
}

function ownBlock(block: HostBlock): UnicornBlock {
  if (!(block instanceof UnicornBlock)) throw new Bug('a block of another engine');
  return block;
}

/** For calls that fail only when we misuse them. */
function check(call: string, error: number): void {
  if (error !== UcErr.OK) throw new Bug(`${call}: error ${error}`);
}
