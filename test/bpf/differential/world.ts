/*
 * Where random programs run: twice in machine code, on Unicorn and on the host's CPU, and once interpreted; at the
 * same addresses, on the same bytes, with the same helpers.
 */

import {
  type BpfEnvironment,
  type CheckedProgram,
  checkProgram,
  compileAt,
  FlatMemory,
  interpret,
  interpretable,
} from '../../../bpf/index.ts';
import { createMachine, type Machine } from '../../../emu/index.ts';
import { type BpfJitConfig, type BpfJitRevision, PLAIN_BPF_JIT_CONFIG } from '../../../jit/index.ts';
import { addrAdd, Bug, hex64, type Kaddr } from '../../../lib/index.ts';
import { type Generated, MEMORY_BYTES, type Revision, TEST_HELPERS, VALUE_BYTES } from './generate.ts';

/** Programs of one batch: they stand side by side, and one call runs them all. */
export const BATCH = 128;
/** Text of one program, its functions included. */
const ROOM = 1 << 15;
/** What a program may touch: its memory, then its value. */
const DATA_BYTES = MEMORY_BYTES + VALUE_BYTES;
/** fn, memory, length, result. */
const ROW_BYTES = 32;
const STACK_TOP = 0x7000_0000_0000n;
const STACK_BYTES = 8 * 512;

/** Calls every function of a table: rdi: rows, rsi: their number. */
const DRIVER: readonly number[] = [
  ...[0x53, 0x41, 0x54, 0x41, 0x55], // push rbx, r12, r13
  ...[0x48, 0x89, 0xfb, 0x49, 0x89, 0xf4], // rbx = rdi, r12 = rsi
  ...[0x48, 0x8b, 0x7b, 0x08, 0x48, 0x8b, 0x73, 0x10], // again: rdi = [rbx + 8], rsi = [rbx + 16]
  ...[0xff, 0x13, 0x48, 0x89, 0x43, 0x18], // call [rbx]; [rbx + 24] = rax
  ...[0x48, 0x83, 0xc3, 0x20, 0x49, 0xff, 0xcc, 0x75, 0xe9], // rbx += 32; if (--r12) goto again
  ...[0x41, 0x5d, 0x41, 0x5c, 0x5b, 0xc3], // pop r13, r12, rbx; ret
];

/** Every register that a call may change is changed. */
const SPOIL: readonly number[] = [
  ...[0x48, 0xc7, 0xc1, 0x11, 0x11, 0x11, 0x11], // rcx
  ...[0x48, 0xc7, 0xc7, 0x22, 0x22, 0x22, 0x22], // rdi
  ...[0x48, 0xc7, 0xc6, 0x33, 0x33, 0x33, 0x33], // rsi
  ...[0x48, 0xc7, 0xc2, 0x44, 0x44, 0x44, 0x44], // rdx
  ...[0x49, 0xc7, 0xc0, 0x55, 0x55, 0x55, 0x55], // r8
  ...[0x49, 0xc7, 0xc1, 0x66, 0x66, 0x66, 0x66], // r9
  ...[0x49, 0xc7, 0xc2, 0x77, 0x77, 0x77, 0x77], // r10
  ...[0x49, 0xc7, 0xc3, 0x08, 0x08, 0x08, 0x08], // r11
];

const CLOCK = 0x1234_5678_9abc_def0n;

interface TestHelper {
  readonly code: readonly number[];
  readonly run: (memory: FlatMemory, args: readonly bigint[]) => bigint;
}

const HELPERS: Readonly<Record<number, TestHelper>> = {
  [TEST_HELPERS.clock]: {
    code: [0x48, 0xb8, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, ...SPOIL, 0xc3],
    run: () => CLOCK,
  },
  // All run on the first CPU.
  [TEST_HELPERS.cpu]: { code: [0x31, 0xc0, ...SPOIL, 0xc3], run: () => 0n },
  // lea rax, [rdi + 2 * rdi + 1]
  [TEST_HELPERS.mix]: {
    code: [0x48, 0x8d, 0x44, 0x7f, 0x01, ...SPOIL, 0xc3],
    run: (_, [a = 0n]) => BigInt.asUintN(64, 3n * a + 1n),
  },
  // rax = rdi + rsi; [rdx] = rax
  [TEST_HELPERS.fill]: {
    code: [0x48, 0x8d, 0x04, 0x37, 0x48, 0x89, 0x02, ...SPOIL, 0xc3],
    run: (memory, [a = 0n, b = 0n, to = 0n]) => {
      memory.write(to, 8, BigInt.asUintN(64, a + b));
      return BigInt.asUintN(64, a + b);
    },
  },
};

/** One program and what it starts with. */
export interface Case {
  readonly revision: Revision;
  readonly program: Generated;
  /** Its memory, then its value. */
  readonly data: Uint8Array;
}

/** What is left when it has run. */
export interface Outcome {
  readonly r0: string;
  readonly data: Uint8Array;
}

export interface Compared {
  readonly checked: CheckedProgram;
  readonly interpreted: Outcome;
  /** By machine, in the order of the world's. */
  readonly ran: readonly Outcome[];
}

interface Text {
  readonly at: Kaddr;
  readonly bytes: Uint8Array;
}

interface Places {
  readonly text: Kaddr;
  readonly driver: Kaddr;
  readonly helpers: ReadonlyMap<number, Kaddr>;
  readonly rows: Kaddr;
  readonly data: Kaddr;
}

/** Places what every machine has, the same way, so that it stands at the same addresses. */
function furnish(machine: Machine): Places {
  const { memory } = machine;
  const text = memory.allocText(BATCH * ROOM, 'programs');
  const runtime = memory.allocText(4096, 'driver and helpers');
  const code: number[] = [...DRIVER];
  const helpers = new Map<number, Kaddr>();
  for (const [id, helper] of Object.entries(HELPERS)) {
    helpers.set(Number(id), addrAdd(runtime, code.length));
    code.push(...helper.code);
  }
  machine.patchText(runtime, Uint8Array.from(code));
  return {
    text,
    driver: runtime,
    helpers,
    rows: memory.allocData(BATCH * ROW_BYTES, 'table'),
    data: memory.allocData(BATCH * DATA_BYTES, 'data'),
  };
}

export class World {
  readonly machines: readonly Machine[];
  readonly #places: Places;
  readonly #bmi2: boolean;
  /** Compiles in the place of the revision's JIT. */
  jit: BpfJitRevision | undefined;

  private constructor(machines: readonly Machine[], places: Places, bmi2: boolean) {
    this.machines = machines;
    this.#places = places;
    this.#bmi2 = bmi2;
  }

  /** @param engines those that the programs run on besides the interpreter */
  static async open(engines: readonly ('unicorn' | 'native')[], bmi2 = false): Promise<World> {
    const machines = await Promise.all(
      engines.map((engine) => createMachine({ engine, layout: 'user', counting: false })),
    );
    const all = machines.map(furnish);
    const [places] = all;
    if (places === undefined) throw new Bug('a world has machines');
    const differs = all.some(({ text, data, rows, driver }) => {
      return text !== places.text || data !== places.data || rows !== places.rows || driver !== places.driver;
    });
    if (differs) throw new Bug('the machines have different addresses');
    return new World(machines, places, bmi2);
  }

  close(): void {
    for (const machine of this.machines) machine.close();
  }

  /** Runs up to BATCH programs everywhere. @throws InputError when one is refused, with its number */
  run(cases: readonly Case[]): Compared[] {
    const { text, data } = this.#places;
    const texts: Text[] = [];
    const checked = cases.map((one, i) => this.#compile(one, i, addrAdd(text, i * ROOM), texts));
    const interpreted = cases.map((one, i) =>
      this.#interpret(one, checked[i] as CheckedProgram, addrAdd(data, i * DATA_BYTES)),
    );
    const ran = this.machines.map((machine) => this.#runOn(machine, cases, texts));
    return cases.map((_, i) => ({
      checked: checked[i] as CheckedProgram,
      interpreted: interpreted[i] as Outcome,
      ran: ran.map((outcomes) => outcomes[i] as Outcome),
    }));
  }

  environment(revision: Revision, at: Kaddr): BpfEnvironment {
    const value = addrAdd(at, MEMORY_BYTES);
    return {
      revision,
      entry: {
        kind: 'function',
        params: [{ kind: 'memory', sizeBytes: MEMORY_BYTES, nullable: false }, { kind: 'scalar' }],
      },
      sleepable: false,
      maps: [],
      globals: [
        {
          name: 'value',
          address: value,
          sizeBytes: VALUE_BYTES,
          readOnly: false,
          contents: new Uint8Array(),
        },
      ],
      externs: [],
      helper: (id) => this.#places.helpers.get(id),
      callBase: this.#places.driver,
      cpuNumberOffset: this.machines[0]?.percpu.vars.cpuNumber ?? 0,
    };
  }

  #config(): BpfJitConfig {
    return {
      ...PLAIN_BPF_JIT_CONFIG,
      callBase: this.#places.driver,
      thisCpuOff: this.machines[0]?.percpu.vars.thisCpuOff ?? 0,
      bmi2: this.#bmi2,
    };
  }

  /** Checks, rewrites and compiles; each function has an equal share of the room. */
  #compile({ revision, program }: Case, index: number, at: Kaddr, texts: Text[]): CheckedProgram {
    const code = { name: `case ${index}`, ...program, references: [] };
    const checked = checkProgram(
      code,
      this.environment(revision, addrAdd(this.#places.data, index * DATA_BYTES)),
    );
    const share = Math.floor(ROOM / checked.functions.length / 16) * 16;
    const images = checked.functions.map((_, f) => addrAdd(at, f * share));
    for (const [f, { bytes }] of compileAt(checked, images, {
      revision,
      jit: this.jit,
      config: this.#config(),
    }).entries()) {
      if (bytes.length > share) throw new Bug(`a program of ${bytes.length} bytes is too long`);
      texts.push({ at: images[f] as Kaddr, bytes });
    }
    return checked;
  }

  #interpret({ data }: Case, checked: CheckedProgram, at: Kaddr): Outcome {
    const memory = new FlatMemory();
    const bytes = data.slice();
    memory.map(at, bytes);
    memory.map(STACK_TOP - BigInt(STACK_BYTES), new Uint8Array(STACK_BYTES));
    const { percpu } = this.machines[0] as Machine;
    // Where the first CPU keeps its number: 0.
    memory.map(percpu.address(percpu.vars.cpuNumber, 0), new Uint8Array(4));
    const { callBase } = this.environment('v6.12', at);
    const call = (distance: number, args: readonly bigint[]): bigint => {
      const found = [...this.#places.helpers].find(([, address]) => address === addrAdd(callBase, distance));
      if (found === undefined) throw new Bug(`no helper ${distance} behind the base`);
      return (HELPERS[found[0]] as TestHelper).run(memory, args);
    };
    const end = interpret(
      interpretable(checked).insns,
      { memory, call, percpuBase: percpu.base(0) },
      { args: [at, BigInt(MEMORY_BYTES)], stackTop: STACK_TOP },
    );
    const r0 = 'error' in end ? `${end.error}, at ${end.at}` : hex64(end.r0);
    return { r0, data: bytes };
  }

  #runOn(machine: Machine, cases: readonly Case[], texts: readonly Text[]): Outcome[] {
    const { text, driver, rows, data } = this.#places;
    for (const { at, bytes } of texts) machine.patchText(at, bytes);
    const all = machine.memory.bytes(data, cases.length * DATA_BYTES);
    const table = machine.memory.bytes(rows, cases.length * ROW_BYTES);
    const view = new DataView(table.buffer, table.byteOffset, table.length);
    for (const [i, one] of cases.entries()) {
      all.set(one.data, i * DATA_BYTES);
      view.setBigUint64(i * ROW_BYTES, addrAdd(text, i * ROOM), true);
      view.setBigUint64(i * ROW_BYTES + 8, addrAdd(data, i * DATA_BYTES), true);
      view.setBigUint64(i * ROW_BYTES + 16, BigInt(MEMORY_BYTES), true);
      view.setBigUint64(i * ROW_BYTES + 24, 0n, true);
    }
    const end = machine.cpus[0]?.call(driver, [rows, BigInt(cases.length)]);
    // A fault ends the batch: the results behind it are missing, and the first one of them is the culprit.
    const fault = end?.fault?.detail ?? '';
    return cases.map((_, i) => ({
      r0: fault === '' ? hex64(view.getBigUint64(i * ROW_BYTES + 24, true)) : fault,
      data: all.slice(i * DATA_BYTES, (i + 1) * DATA_BYTES),
    }));
  }
}
