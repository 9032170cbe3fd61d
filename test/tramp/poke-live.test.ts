import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createMachine, type Machine, type Vcpu } from '../../emu/index.ts';
import { NOP5, patchBytes } from '../../jit/index.ts';
import { addrAdd, type Kaddr } from '../../lib/index.ts';
import { TextPoker } from '../../tramp/index.ts';

/*
 * A CPU never runs a torn instruction. Code around a poked site, where every path leaves its own number:
 *
 *   code:  nop; nop; xor eax, eax; add rax, 1
 *   site:  nop5 | call A | call B | jmp A | jmp B
 *          add rax, 10; nop; ret
 *   A:     add rax, 100; ret
 *   B:     add rax, 200; ret
 */
const CODE = [0x90, 0x90, 0x31, 0xc0, 0x48, 0x83, 0xc0, 0x01, ...NOP5, 0x48, 0x83, 0xc0, 0x0a, 0x90, 0xc3];
const SITE = 8;
const TARGET = { A: [0x48, 0x05, 100, 0, 0, 0, 0xc3], B: [0x48, 0x05, 200, 0, 0, 0, 0xc3] };

/** Instructions before the site, and of the longest path. */
const BEFORE = 4;
const LONGEST = 10;
const CPUS = 4;

let machine: Machine;
let code: Kaddr;
let site: Kaddr;
let targets: { readonly A: Kaddr; readonly B: Kaddr };

beforeAll(async () => {
  machine = await createMachine({ cpus: CPUS });
  const place = (name: string, bytes: readonly number[]): Kaddr => {
    const address = machine.memory.allocText(4096, name);
    machine.patchText(address, Uint8Array.from(bytes));
    return address;
  };
  code = place('code', CODE);
  site = addrAdd(code, SITE);
  targets = { A: place('A', TARGET.A), B: place('B', TARGET.B) };
});

afterAll(() => machine.close());

/** What can stand at the site, and what the code returns then. */
const TEXT = {
  nop: 11n,
  'call A': 111n,
  'call B': 211n,
  'jump A': 101n,
  'jump B': 201n,
} as const;
type Text = keyof typeof TEXT;

function bytesOf(text: Text): Uint8Array {
  const target = text.endsWith('A') ? targets.A : targets.B;
  const bytes = patchBytes(text.startsWith('jump') ? 'JUMP' : 'CALL', site, text === 'nop' ? null : target);
  if (bytes === undefined) throw new RangeError(text);
  return bytes;
}

const TRANSITIONS: readonly (readonly [Text, Text])[] = [
  ['nop', 'call A'],
  ['call A', 'call B'],
  ['call A', 'nop'],
  ['nop', 'jump A'],
  ['jump A', 'jump B'],
  ['jump A', 'nop'],
];

/** How many instructions a CPU executes before the poke, and at each of its synchronisations. */
type Pace = readonly number[];

/** Lets every CPU call the code at its own pace while the site changes. What each returned, or its fault. */
function pokeUnder(
  [from, to]: readonly [Text, Text],
  paces: readonly Pace[],
  bug?: 'torn-write' | 'torn-tail' | 'int3-unhandled',
): (bigint | string)[] {
  machine.patchText(site, bytesOf(from));
  const running = paces.map((pace, id) => ({
    cpu: machine.cpus[id] as Vcpu,
    pace,
    end: undefined as bigint | string | undefined,
  }));
  const go = (phase: number): void => {
    for (const one of running) {
      if (one.end !== undefined) continue;
      const steps = one.pace[phase];
      const { reason, fault } = one.cpu.run(steps === undefined ? {} : { steps });
      if (reason === 'returned') one.end = one.cpu.regs.get('rax');
      else if (fault !== null) one.end = fault.kind;
    }
  };
  for (const { cpu } of running) cpu.begin(code, []);
  let phase = 0;
  const poker = new TextPoker(machine, () => go(++phase), new Set(bug === undefined ? [] : [bug]));
  go(0);
  poker.poke(site, bytesOf(to));
  go(Number.POSITIVE_INFINITY);
  expect([...machine.memory.bytes(site, 5)]).toEqual([...bytesOf(to)]);
  return running.map(({ end }) => end ?? 'nothing');
}

/** Every way to spread up to LONGEST instructions over the time before the poke and `syncs` synchronisations. */
function* paces(syncs: number, left: number = LONGEST): Generator<number[]> {
  for (let steps = 0; steps <= left; steps++) {
    if (syncs === 0) yield [steps];
    else for (const rest of paces(syncs - 1, left - steps)) yield [steps, ...rest];
  }
}

/** From the int3 on, a CPU that comes by does what the new instruction does. */
function expected([from, to]: readonly [Text, Text], [before]: Pace): bigint {
  return TEXT[(before ?? 0) > BEFORE ? from : to];
}

describe.each(TRANSITIONS)('%s to %s', (from, to) => {
  test('at every instruction, in every phase, one CPU does the old or the new', () => {
    let schedules = 0;
    for (const pace of paces(3)) {
      schedules++;
      const [result] = pokeUnder([from, to], [pace]);
      if (result !== expected([from, to], pace)) expect.fail(`${pace}: ${result}`);
    }
    expect(schedules).toBe(1001);
  });

  test('so do four CPUs at four paces', () => {
    const pace = fc.array(fc.integer({ min: 0, max: LONGEST }), { minLength: 4, maxLength: 4 });
    const four = fc.array(pace, { minLength: CPUS, maxLength: CPUS });
    fc.assert(
      fc.property(four, (each) => {
        expect(pokeUnder([from, to], each)).toEqual(each.map((one) => expected([from, to], one)));
      }),
      { numRuns: 200, seed: 1 },
    );
  });
});

/** Outcomes, over all paces, that are neither the old nor the new. */
function torn(
  change: readonly [Text, Text],
  bug: 'torn-write' | 'torn-tail' | 'int3-unhandled' = 'torn-write',
): Set<bigint | string> {
  const found = new Set<bigint | string>();
  for (const pace of paces(bug === 'int3-unhandled' ? 3 : 1)) {
    for (const result of pokeUnder(change, [pace], bug)) {
      if (result !== TEXT[change[0]] && result !== TEXT[change[1]]) found.add(result);
    }
  }
  return found;
}

test('torn-write is found: without int3 a CPU runs half of each', () => {
  const kinds = Object.fromEntries(TRANSITIONS.map((change) => [change.join(' to '), torn(change).size > 0]));
  expect(kinds).toEqual({
    'nop to call A': true,
    // first bytes are equal, and the tail changes at once
    'call A to call B': false,
    'call A to nop': true,
    'nop to jump A': true,
    'jump A to jump B': false,
    'jump A to nop': true,
  });
});

test.each(['torn-tail', 'int3-unhandled'] as const)('%s is found in every change of a nop', (bug) => {
  for (const change of TRANSITIONS) {
    if (change.includes('nop')) expect(torn(change, bug).size, change.join(' to ')).toBeGreaterThan(0);
  }
});

describe('an int3 that is not ours', () => {
  beforeEach(() => machine.patchText(code, Uint8Array.from(CODE)));

  test('elsewhere, while a site is being poked', () => {
    const faults: (string | undefined)[] = [];
    machine.patchText(targets.B, Uint8Array.of(0xcc));
    const sync = (): void => void faults.push(machine.cpus[0]?.call(targets.B).fault?.kind);
    new TextPoker(machine, sync).poke(site, bytesOf('call A'));
    machine.patchText(targets.B, Uint8Array.from(TARGET.B));
    expect(faults).toEqual(['int3', 'int3', 'int3']);
  });

  test('at a site whose poke is over', () => {
    new TextPoker(machine, () => undefined).poke(site, bytesOf('call A'));
    expect(machine.cpus[0]?.call(code)).toMatchObject({ ret: 111n, fault: null });
    machine.patchText(site, Uint8Array.of(0xcc));
    expect(machine.cpus[0]?.call(code).fault).toMatchObject({ kind: 'int3', rip: site });
  });
});
