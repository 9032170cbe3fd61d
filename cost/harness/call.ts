/*
 * What a traced call costs through the machine, against the same bytes on a bare engine. The ratio within one
 * round is the figure.
 *
 *   bare      uc_reg_write per register, return address, uc_emu_start, uc_reg_read of rax: no instruction
 *             count, no step limit, no fault decoding
 *   machine   Vcpu.call: exact instruction count and step limit on
 *
 * Each twice: one start of the engine per call, and a loop in guest code that calls many times per start.
 */

import { createMachine, openUnicorn, type Vcpu } from '../../emu/index.ts';
import { Bug, type Kaddr } from '../../lib/index.ts';
import { mixesOf } from '../mix.ts';
import { placeLoop, Scene } from '../scene.ts';
import { inTurn, type Time, timeOf } from './rounds.ts';

export interface CallCost {
  /** Instructions of one call. */
  readonly instructions: number;
  readonly single: Versus;
  readonly loop: Versus;
}

/** A call on the bare engine and through the machine, and the median over the rounds of machine / bare. */
export interface Versus {
  readonly bare: Time;
  readonly machine: Time;
  readonly ratio: number;
}

/** Calls per sample of single calls, and per turn of the guest's loop. */
const BATCH = 200;
const MIX = 'fentry, 1 argument';

export async function callCost(rounds: number): Promise<CallCost> {
  const mix = mixesOf('v5.15').find(({ name }) => name === MIX);
  if (mix === undefined) throw new Bug(`no mix ${MIX}`);
  const scene = await Scene.create(await createMachine(), 'v5.15', mix);
  try {
    const { cpu, entry, args } = scene;
    const loop = placeLoop(scene, BATCH);
    const bareCall = bareEngine(scene, entry);
    const bareLoop = bareEngine(scene, loop);
    const { ret, instructions } = cpu.call(entry, args);
    if (bareCall() !== ret) throw new Bug('the bare engine computes something else');
    const times = await inTurn(
      [
        { name: 'bare', batch: BATCH, run: () => repeat(bareCall) },
        { name: 'machine', batch: BATCH, run: () => repeat(() => cpu.call(entry, args)) },
        { name: 'bare loop', batch: BATCH, run: bareLoop },
        { name: 'machine loop', batch: BATCH, run: () => cpu.call(loop) },
      ],
      { rounds, timeMs: 150 },
    );
    const versus = (bare: string, machine: string): Versus => {
      const [one, other] = [times.get(bare) ?? [], times.get(machine) ?? []];
      const ratios = other.map((value, round) => value / (one[round] as number));
      return { bare: timeOf(one), machine: timeOf(other), ratio: timeOf(ratios).medianNs };
    };
    return {
      instructions,
      single: versus('bare', 'machine'),
      loop: versus('bare loop', 'machine loop'),
    };
  } finally {
    scene.close();
  }
}

function repeat(call: () => unknown): void {
  for (let i = 0; i < BATCH; i++) call();
}

const PAGE = 4096n;
const UcReg = { RAX: 35, RDI: 39, RSP: 44, GS_BASE: 251 } as const;
const UcPerms = { r: 1, rw: 3, rx: 5 } as const;
const ARCH_X86 = 4;
const MODE_64 = 8;

/** A bare engine with copies of every page that a call of `fn` touches; calls it. */
function bareEngine({ lab, cpu, args }: Scene, fn: Kaddr): () => bigint {
  const uc = openUnicorn();
  const open = uc.func('int uc_open(int arch, int mode, _Out_ void **uc)');
  const map = uc.func('int uc_mem_map(void *uc, int64_t address, size_t size, uint32_t perms)');
  const write = uc.func('int uc_mem_write(void *uc, int64_t address, void *bytes, size_t size)');
  const start = uc.func(
    'int uc_emu_start(void *uc, int64_t begin, int64_t until, uint64_t timeout, size_t count)',
  );
  const regWrite = uc.func('int uc_reg_write(void *uc, int id, void *value)');
  const regRead = uc.func('int uc_reg_read(void *uc, int id, void *value)');
  const out: [unknown] = [null];
  open(ARCH_X86, MODE_64, out);
  const [engine] = out;
  const signed = (address: bigint): bigint => BigInt.asIntN(64, address);

  const { memory, percpu } = lab.machine;
  // Every call of this CPU starts with the same stack pointer, at the address that it returns to.
  cpu.begin(fn, args);
  const rsp = cpu.regs.get('rsp') as Kaddr;
  cpu.abort();
  const exit = memory.readU64(rsp) as Kaddr;
  const exitBytes = memory.bytes(rsp, 8).slice();

  const mapped = new Set<bigint>();
  for (const address of [exit, percpu.base(cpu.id), ...touched(cpu, fn, args)]) {
    const region = memory.regionAt(address);
    const page = address & -PAGE;
    if (region === undefined || mapped.has(page)) continue;
    mapped.add(page);
    map(engine, signed(page), Number(PAGE), UcPerms[region.perms]);
    const end = region.start + BigInt(region.sizeBytes);
    const from = region.start > page ? region.start : (page as Kaddr);
    const length = Number((end < page + PAGE ? end : page + PAGE) - from);
    write(engine, signed(from), memory.bytes(from, length), length);
  }

  const word = Buffer.alloc(8);
  const set = (register: number, value: bigint): void => {
    word.writeBigUInt64LE(value);
    regWrite(engine, register, word);
  };
  set(UcReg.GS_BASE, percpu.base(cpu.id));
  const slot = Number(signed(rsp));
  const begin = Number(signed(fn));
  return () => {
    set(UcReg.RDI, args[0] ?? 0n);
    set(UcReg.RSP, rsp);
    write(engine, slot, exitBytes, exitBytes.length);
    const error = start(engine, begin, 0, 0, 0) as number;
    if (error !== 0) throw new Bug(`uc_emu_start: ${error}`);
    regRead(engine, UcReg.RAX, word);
    return word.readBigUInt64LE();
  };
}

/** What a call executes, and where its registers point on the way: every page that it needs is among them. */
function touched(cpu: Vcpu, fn: Kaddr, args: readonly bigint[]): Set<Kaddr> {
  const found = new Set<bigint>();
  cpu.begin(fn, args);
  do {
    for (const name of ['rip', 'rsp', 'rdi', 'rax', 'rcx', 'rdx'] as const) found.add(cpu.regs.get(name));
  } while (cpu.step().reason === 'steps');
  return found as Set<Kaddr>;
}
