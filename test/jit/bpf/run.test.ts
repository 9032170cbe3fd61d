/*
 * Compiled programs on the machine: what they do, whatever their bytes. The kernels' vectors say that the bytes are
 * the kernel's; this says that they do what the instruction set says, and that we read both alike.
 */

import { describe, expect, test } from 'vitest';
import type { CallResult, Machine } from '../../../emu/index.ts';
import {
  BPF_ADD,
  BPF_ADDR_PERCPU,
  BPF_ALU64,
  BPF_CALL,
  BPF_DW,
  BPF_JMP,
  BPF_K,
  BPF_LDX,
  BPF_MEM,
  BPF_MOV,
  BPF_PROBE_ATOMIC,
  BPF_PROBE_MEM,
  BPF_PROBE_MEM32,
  BPF_REG_FP,
  BPF_ST,
  BPF_STX,
  BPF_TAIL_CALL,
  BPF_W,
  BPF_X,
  type BpfImage,
  type BpfInsn,
  type BpfJitConfig,
  decidePoke,
  disasmInsn,
  exFixups,
  PLAIN_BPF_JIT_CONFIG,
  tailCallPokes,
} from '../../../jit/index.ts';
import { addrAdd, addrDistance, type Kaddr, kaddr } from '../../../lib/index.ts';
import { machine, place, random } from '../../emu/machines.ts';
import { evaluate } from './evaluate.ts';
import { exit, image, insn, ldImm64, movImm } from './programs.ts';
import { randomProgram, STACK_DEPTH } from './random-program.ts';

const REVISIONS = ['v5.15', 'v6.1', 'v6.12'] as const;

/** Room for one program. */
const ROOM = 1 << 15;

const movReg = (dst: number, src: number): BpfInsn => insn(BPF_ALU64 | BPF_MOV | BPF_X, { dst, src });
const load = (dst: number, src: number, off = 0): BpfInsn =>
  insn(BPF_LDX | BPF_MEM | BPF_DW, { dst, src, off });
const store = (dst: number, src: number, off = 0): BpfInsn =>
  insn(BPF_STX | BPF_MEM | BPF_DW, { dst, src, off });
const addImm = (dst: number, imm: number): BpfInsn => insn(BPF_ALU64 | BPF_ADD | BPF_K, { dst, imm });

function call(on: Machine, at: Kaddr, args: readonly bigint[] = []): CallResult {
  const [cpu] = on.cpus;
  if (cpu === undefined) throw new RangeError('a machine without CPU');
  return cpu.call(at, args);
}

function returned(on: Machine, at: Kaddr, args: readonly bigint[] = []): bigint {
  const { ret, fault } = call(on, at, args);
  expect(fault).toBeNull();
  return ret;
}

/** Shown where a program went wrong. */
const listing = (insns: readonly BpfInsn[]): string =>
  insns.map((one, i) => `${i}: ${disasmInsn(one, insns[i + 1])}`).join('\n');

describe.each(REVISIONS)('%s', (revision) => {
  test('random programs return what the instruction set says', async () => {
    const on = await machine();
    const at = on.memory.allocText(ROOM, 'bpf_prog');
    const next = random(0x5eed);
    for (let i = 0; i < 60; i++) {
      const insns = randomProgram(next, revision, 80);
      on.patchText(at, image(revision, insns, { image: at, stackDepth: STACK_DEPTH }).bytes);
      const ret = returned(on, at);
      const wanted = evaluate(insns);
      if (ret !== wanted) expect.fail(`program ${i}: ${ret}, not ${wanted}\n${listing(insns)}`);
    }
  });

  test('helpers and other functions of the program are called, and keep what they must', async () => {
    const on = await machine();
    // lea rax, [rdi + rsi]; ret
    const helper = place(on, Uint8Array.of(0x48, 0x8d, 0x04, 0x37, 0xc3), 'helper');
    const callBase = addrAdd(helper, -16);
    const config = { callBase };
    const sub = on.memory.allocText(ROOM, 'subprog');
    const main = on.memory.allocText(ROOM, 'main');
    const distance = (to: Kaddr): number => Number(addrDistance(callBase, to));
    const callOf = (imm: number, src = 0): BpfInsn => insn(BPF_JMP | BPF_CALL, { src, imm });

    // sub(a, b) = helper(a, b) + 1, spoiling r6 .. r9 on the way
    const spoil = [6, 7, 8, 9].map((reg) => movImm(reg, -1));
    const subInsns = [...spoil, callOf(16), addImm(0, 1), exit];
    on.patchText(sub, image(revision, subInsns, { image: sub, isSubprog: true, config }).bytes);

    const mainInsns = (imm: number): BpfInsn[] => [
      movImm(6, 600),
      movImm(9, 900),
      movImm(1, 5),
      movImm(2, 7),
      callOf(imm, 1),
      insn(BPF_ALU64 | BPF_ADD | BPF_X, { dst: 0, src: 6 }),
      insn(BPF_ALU64 | BPF_ADD | BPF_X, { dst: 0, src: 9 }),
      exit,
    ];
    const made = image(revision, mainInsns(1), { image: main, final: mainInsns(distance(sub)), config });
    on.patchText(main, made.bytes);
    expect(returned(on, main)).toBe(5n + 7n + 1n + 600n + 900n);
  });

  describe('tail calls', () => {
    /** Counts its runs at [r1] in a frame of its own, and calls what is in slot 0 of the map. */
    const counting = (map: Kaddr, entry: number): BpfInsn[] => [
      movReg(6, 1),
      load(7, 6),
      addImm(7, 1),
      store(6, 7),
      insn(BPF_ST | BPF_MEM | BPF_DW, { dst: BPF_REG_FP, off: -24, imm: 1 }),
      ...ldImm64(2, map),
      movImm(3, 0),
      insn(BPF_JMP | BPF_TAIL_CALL, { imm: entry }),
      load(0, 6),
      addImm(0, 1000),
      exit,
    ];
    const options = { stackDepth: 24, tailCallReachable: true };
    const ptrs = revision === 'v6.12' ? 0x108 : 0x110;

    /** struct bpf_array with one slot, and the struct bpf_prog in it. */
    function map(on: Machine, func: Kaddr): Kaddr {
      const array = on.memory.kmalloc(0x200, 'bpf_array');
      const prog = on.memory.kmalloc(0x100, 'bpf_prog');
      on.memory.writeU32(addrAdd(array, 0x24), 1);
      on.memory.writeU64(addrAdd(array, ptrs), prog);
      on.memory.writeU64(addrAdd(prog, 0x30), func);
      return array;
    }

    test.each([{}, { retpoline: true }, { ibt: true }])('33 of them, indirect: %j', async (more) => {
      // what is called through a retpoline needs thunks from v6.1 on
      const config: Partial<BpfJitConfig> = revision === 'v5.15' ? more : { ...more, retpoline: false };
      const on = await machine();
      const func = on.memory.allocText(ROOM, 'bpf_prog');
      const runs = on.memory.kmalloc(8, 'runs');
      const array = map(on, func);
      on.patchText(func, image(revision, counting(array, 0), { ...options, image: func, config }).bytes);
      expect(returned(on, func, [runs])).toBe(1034n);
      expect(on.memory.readU64(runs)).toBe(34n);
      // an empty slot, and an index outside
      on.memory.writeU64(runs, 0n);
      on.memory.writeU64(addrAdd(array, ptrs), 0n);
      expect(returned(on, func, [runs])).toBe(1001n);
      on.memory.writeU32(addrAdd(array, 0x24), 0);
      expect(returned(on, func, [runs])).toBe(1002n);
    });

    test('direct: none while the slot is empty, then 33', async () => {
      const on = await machine();
      const func = on.memory.allocText(ROOM, 'bpf_prog');
      const runs = on.memory.kmalloc(8, 'runs');
      const made = image(revision, counting(kaddr(0), 1), { ...options, image: func });
      on.patchText(func, made.bytes);
      const change = (before: Kaddr | null, after: Kaddr | null): void => {
        for (const step of tailCallPokes(func, made.pokes[0] as (typeof made.pokes)[0], before, after)) {
          if (step.place === 'synchronize_rcu') continue;
          const { write } = decidePoke('v5.15', step.poke, on.memory.bytes(step.poke.ip, 5));
          on.patchText(step.poke.ip, write as Uint8Array);
        }
      };
      expect(returned(on, func, [runs])).toBe(1001n);
      change(null, func);
      expect(returned(on, func, [runs])).toBe(1000n + 1n + 34n);
      change(func, null);
      expect(returned(on, func, [runs])).toBe(1000n + 1n + 34n + 1n);
    });

    test('33 in all, when a function of the program makes them', async () => {
      const on = await machine();
      const main = on.memory.allocText(ROOM, 'main');
      const sub = on.memory.allocText(ROOM, 'subprog');
      const runs = on.memory.kmalloc(8, 'runs');
      const array = map(on, main);
      const subInsns = [
        ...ldImm64(2, array),
        movImm(3, 0),
        insn(BPF_JMP | BPF_TAIL_CALL),
        movImm(0, 0),
        exit,
      ];
      on.patchText(sub, image(revision, subInsns, { ...options, image: sub, isSubprog: true }).bytes);
      const mainInsns = [
        movReg(6, 1),
        load(7, 6),
        addImm(7, 1),
        store(6, 7),
        insn(BPF_JMP | BPF_CALL, { src: 1, imm: 64 }),
        load(0, 6),
        exit,
      ];
      const config = { callBase: addrAdd(sub, -64) };
      on.patchText(main, image(revision, mainInsns, { ...options, image: main, config }).bytes);
      expect(returned(on, main, [runs])).toBe(34n);
    });
  });

  describe('probe loads', () => {
    const probe = (off: number): BpfInsn[] => [
      movImm(0, -1),
      insn(BPF_LDX | BPF_PROBE_MEM | BPF_DW, { dst: 0, src: 1, off }),
      exit,
    ];

    async function compiled(off: number): Promise<{ on: Machine; at: Kaddr; made: BpfImage }> {
      const on = await machine();
      const at = on.memory.allocText(ROOM, 'bpf_prog');
      const made = image(revision, probe(off), { image: at, numExentries: 1 });
      on.patchText(at, made.bytes);
      return { on, at, made };
    }

    test.each([0, 8, -8, 0x1000])('off %d: a kernel pointer is read through', async (off) => {
      const { on, at } = await compiled(off);
      const value = on.memory.kmalloc(8, 'value');
      on.memory.writeU64(value, 0x1122_3344_5566_7788n);
      // Before v6.12 the guard takes the carry of a negative offset for a wrap-around: the kernel's own mistake.
      const read = off >= 0 || revision === 'v6.12';
      expect(returned(on, at, [addrAdd(value, -off)])).toBe(read ? 0x1122_3344_5566_7788n : 0n);
    });

    test.each([0, 8, -8])('off %d: what is no kernel pointer is not tried', async (off) => {
      const { on, at } = await compiled(off);
      const end = PLAIN_BPF_JIT_CONFIG.taskSizeMax;
      for (const pointer of [0n, 4096n, end - 8n, end]) expect(returned(on, at, [pointer])).toBe(0n);
      if (off > 0) expect(returned(on, at, [-1n])).toBe(0n);
    });

    test('what faults is what the table names, and it knows where to go on', async () => {
      const { on, at, made } = await compiled(16);
      const { fault } = call(on, at, [0xffff_8fff_0000_0000n]);
      const fixup = exFixups(made.exTable).get(Number((fault?.rip ?? at) - at));
      expect(fixup).toMatchObject({ resume: made.addrs[2] });
      expect(fixup?.clears?.name).toBe('rax');
    });
  });
});

describe('v6.12', () => {
  test('accesses to the arena are relative to it', async () => {
    const on = await machine();
    const at = on.memory.allocText(ROOM, 'bpf_prog');
    const arena = on.memory.vmalloc(4096, 'arena');
    const insns = [
      movImm(1, 64),
      movImm(2, 5),
      insn(BPF_ST | BPF_PROBE_MEM32 | BPF_DW, { dst: 1, off: 8, imm: -3 }),
      insn(BPF_STX | BPF_PROBE_MEM32 | BPF_W, { dst: 1, src: 2, off: 16 }),
      insn(BPF_STX | BPF_PROBE_ATOMIC | BPF_W, { dst: 1, src: 2, off: 16, imm: BPF_ADD }),
      insn(BPF_LDX | BPF_PROBE_MEM32 | BPF_W, { dst: 0, src: 1, off: 16 }),
      exit,
    ];
    const made = image('v6.12', insns, { image: at, numExentries: 4, arenaKernVmStart: arena });
    on.patchText(at, made.bytes);
    expect(returned(on, at)).toBe(10n);
    expect(on.memory.readU64(addrAdd(arena, 72))).toBe(BigInt.asUintN(64, -3n));
    // behind its page there is nothing: the access faults where the table says
    const beyond = image('v6.12', [movImm(1, 0x7000_0000), ...insns.slice(1)], {
      image: at,
      numExentries: 4,
      arenaKernVmStart: arena,
    });
    on.patchText(at, beyond.bytes);
    const { fault } = call(on, at);
    const fixup = exFixups(beyond.exTable).get(Number((fault?.rip ?? at) - at));
    expect(fixup).toEqual({ resume: beyond.addrs[3], clears: undefined });
  });

  test('a pointer into the arena is cast to the user, NULL to NULL', async () => {
    const on = await machine();
    const at = on.memory.allocText(ROOM, 'bpf_prog');
    for (const dst of [0, 1, 8]) {
      const cast = insn(BPF_ALU64 | BPF_MOV | BPF_X, { dst, src: 1, off: 1, imm: 1 << 16 });
      const insns = [cast, movReg(0, dst), exit];
      const user = kaddr(0x7f00_1234_0000_0000n);
      on.patchText(at, image('v6.12', insns, { image: at, arenaUserVmStart: user }).bytes);
      expect(returned(on, at, [0xffff_ffff_0000_5678n])).toBe(0x7f00_1234_0000_5678n);
      expect(returned(on, at, [0xffff_ffff_0000_0000n])).toBe(0n);
    }
  });

  test('per-CPU addresses are of the CPU that runs', async () => {
    const on = await machine({ cpus: 2 });
    const at = on.memory.allocText(ROOM, 'bpf_prog');
    const insns = [
      insn(BPF_ALU64 | BPF_MOV | BPF_X, { dst: 8, src: 1, off: BPF_ADDR_PERCPU }),
      load(0, 8),
      exit,
    ];
    const { thisCpuOff } = on.percpu.vars;
    on.patchText(at, image('v6.12', insns, { image: at, config: { thisCpuOff } }).bytes);
    const variable = on.percpu.alloc(8, 8);
    for (const cpu of on.cpus) {
      on.memory.writeU64(on.percpu.address(variable, cpu.id), BigInt(70 + cpu.id));
      expect(cpu.call(at, [BigInt(variable)])).toMatchObject({ ret: BigInt(70 + cpu.id), fault: null });
    }
  });

  test('an exception callback returns from the boundary that it is given', async () => {
    const on = await machine();
    const boundary = on.memory.allocText(ROOM, 'boundary');
    const callback = on.memory.allocText(ROOM, 'callback');
    // bpf_throw as it is: finds the boundary's frame and calls the callback with its rsp and rbp; here the
    // frame is the caller's, whose saved registers lie where rsp pointed before the call
    const throws = place(
      on,
      Uint8Array.of(
        ...[0x48, 0x8d, 0x74, 0x24, 0x08], // lea rsi, [rsp + 8]
        ...[0x48, 0x89, 0xea], // mov rdx, rbp
        ...[0xff, 0xd0], // call rax
      ),
      'throw',
    );
    const callbackInsns = [movReg(0, 1), addImm(0, 1), exit];
    const cb = image('v6.12', callbackInsns, { image: callback, isSubprog: true, exceptionCb: true });
    on.patchText(callback, cb.bytes);
    const boundaryInsns = [
      movImm(1, 41),
      ...ldImm64(0, callback),
      insn(BPF_JMP | BPF_CALL, { imm: 8 }),
      movImm(0, 0),
      exit,
    ];
    const config = { callBase: addrAdd(throws, -8) };
    const made = image('v6.12', boundaryInsns, {
      image: boundary,
      exceptionBoundary: true,
      stackDepth: 16,
      config,
    });
    on.patchText(boundary, made.bytes);
    expect(returned(on, boundary)).toBe(42n);
  });
});
