/* Counts of a call by single steps: what each instruction is and touches says the independent decoder. */

import {
  Decoder,
  DecoderOptions,
  FlowControl,
  InstructionInfoFactory,
  OpAccess,
  Register,
  type UsedMemory,
} from 'iced-x86';
import type { Counts, Scene } from '../../cost/index.ts';
import type { RegisterName, RunOptions, RunResult } from '../../emu/index.ts';
import { Bug } from '../../lib/index.ts';

const LONGEST = 15;
const LINE = 64n;

const READS: ReadonlySet<OpAccess> = new Set([
  OpAccess.Read,
  OpAccess.CondRead,
  OpAccess.ReadWrite,
  OpAccess.ReadCondWrite,
]);
const WRITES: ReadonlySet<OpAccess> = new Set([
  OpAccess.Write,
  OpAccess.CondWrite,
  OpAccess.ReadWrite,
  OpAccess.ReadCondWrite,
]);

const MODULO = 1n << 64n;

/** Calls the scene's function step by step and counts. */
export function stepped(scene: Scene): Counts {
  const { cpu } = scene;
  const { memory, percpu } = scene.lab.machine;
  const factory = new InstructionInfoFactory();
  const code = new Set<bigint>();
  const data = new Set<bigint>();
  const counts = { instructions: 0, bytes: 0, loads: 0, stores: 0, branches: 0, calls: 0 };

  const addressOf = (used: UsedMemory): bigint => {
    const value = (register: Register): bigint =>
      register === Register.None ? 0n : cpu.regs.get(nameOf(register));
    const segment = used.segment === Register.GS ? percpu.base(cpu.id) : 0n;
    const base = used.base === Register.RIP ? 0n : value(used.base);
    return (segment + base + value(used.index) * BigInt(used.scale) + used.displacement) % MODULO;
  };

  const step = (): RunResult => {
    const rip = cpu.regs.get('rip');
    const region = memory.regionAt(rip as Parameters<typeof memory.regionAt>[0]);
    if (region === undefined) throw new Bug('no text at rip');
    const left = Number(region.start + BigInt(region.sizeBytes) - rip);
    const decoder = new Decoder(
      64,
      memory.bytes(rip as typeof region.start, Math.min(LONGEST, left)),
      DecoderOptions.None,
    );
    decoder.ip = rip;
    const instruction = decoder.decode();
    const info = factory.info(instruction);
    counts.instructions++;
    counts.bytes += instruction.length;
    lines(code, rip, instruction.length);
    if ([FlowControl.Call, FlowControl.IndirectCall].includes(instruction.flowControl)) counts.calls++;
    for (const used of info.usedMemory()) {
      if (READS.has(used.access)) counts.loads++;
      if (WRITES.has(used.access)) counts.stores++;
      if (READS.has(used.access) || WRITES.has(used.access)) lines(data, addressOf(used), 8);
      used.free();
    }
    const next = rip + BigInt(instruction.length);
    for (const freed of [info, instruction, decoder]) freed.free();
    const result = cpu.step();
    if (result.reason === 'returned' || cpu.regs.get('rip') !== next) counts.branches++;
    return result;
  };

  scene.call(({ stopAt }: RunOptions = {}) => {
    let result = step();
    while (result.reason === 'steps') {
      if (stopAt !== undefined && cpu.regs.get('rip') === stopAt) return { ...result, reason: 'stop' };
      result = step();
    }
    return result;
  });
  factory.free();
  return { ...counts, codeLines: code.size, dataLines: data.size };
}

function lines(set: Set<bigint>, address: bigint, sizeBytes: number): void {
  for (let at = address / LINE; at <= (address + BigInt(sizeBytes - 1)) / LINE; at++) set.add(at);
}

const NAMES: ReadonlyMap<Register, RegisterName> = new Map(
  (
    [
      'RAX',
      'RCX',
      'RDX',
      'RBX',
      'RSP',
      'RBP',
      'RSI',
      'RDI',
      'R8',
      'R9',
      'R10',
      'R11',
      'R12',
      'R13',
      'R14',
      'R15',
    ] as const
  ).map((name) => [Register[name], name.toLowerCase() as RegisterName]),
);

function nameOf(register: Register): RegisterName {
  const name = NAMES.get(register);
  if (name === undefined) throw new Bug(`register ${register}`);
  return name;
}
