/*
 * Images of v6.1 and v6.12 at work, with nothing of the manager: traced functions, programs, the runtime and
 * the image in one guest. Programs log what they are shown; what has to be there is told from the arguments.
 */

import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createMachine, type Machine } from '../../emu/index.ts';
import {
  Assembler,
  BpfProg,
  BpfProgStats,
  BpfTrampImage,
  ENDBR_BYTES,
  emitRuntime,
  type HelperAddresses,
  HelperPair,
  linkCode,
  NOP5,
  PercpuRef,
  type ProgRef,
  patchBytes,
  piece,
  prepareTrampoline,
  ptr,
  type Reg,
  RuntimeData,
  r8,
  r9,
  r11,
  rax,
  rbp,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  rsp,
  TaskStruct,
  TrampFlag,
} from '../../jit/index.ts';
import { addrAdd, Bug, type Kaddr, kaddr } from '../../lib/index.ts';

const { RESTORE_REGS, CALL_ORIG, SKIP_FRAME, IP_ARG, ORIG_STACK, TAIL_CALL_CTX } = TrampFlag;

const ARG_REGS: readonly Reg[] = [rdi, rsi, rdx, rcx, r8, r9];
const MAX_WORDS = 12;
const IMAGE_BYTES = 4096;
const CODE_BYTES = 512;
/** What rax holds when the traced function is called. */
const TAIL_COUNT = 0x7a11_ca11_0000_0021n;
const RBX = 0x0b0b_0b0b_0b0b_0b0bn;
const ORIGINAL_RETURNS = 0x0123_4567_89ab_cdefn;

/** What a program is shown, word by word in its log. */
const LOG_WORDS = 3 + MAX_WORDS + 1;
/** What the original logs: rax, rsp, six registers, up to twelve stack words. */
const ORIGINAL_WORDS = 2 + 6 + MAX_WORDS;

interface Situation {
  readonly argSizes: readonly number[];
  readonly flags: number;
  readonly ibt: boolean;
  readonly progs: readonly {
    readonly pair: HelperPair;
    readonly sleepable: boolean;
    readonly cookie: bigint;
  }[];
}

/** Where each word of the arguments comes from, by the rules alone: a register's number, or a place on the stack. */
function places(argSizes: readonly number[]): { readonly word: 'reg' | 'stack'; readonly index: number }[] {
  let regs = 0;
  let stack = 0;
  return argSizes.flatMap((size) => {
    const count = Math.ceil(size / 8);
    const fits = regs + count <= 6;
    return Array.from({ length: count }, () =>
      fits ? { word: 'reg' as const, index: regs++ } : { word: 'stack' as const, index: stack++ },
    );
  });
}

describe.each(['v6.1', 'v6.12'] as const)('%s', (revision) => {
  let machine: Machine;
  let helpers: HelperAddresses;
  let image: Kaddr;
  let traced: Kaddr;
  let driver: Kaddr;
  let progText: Kaddr;
  let logs: Kaddr;
  let originalLog: Kaddr;
  let im: Kaddr;
  let progs: readonly Kaddr[];

  beforeAll(async () => {
    machine = await createMachine();
    const { memory, percpu } = machine;
    const code = emitRuntime(revision, { ...percpu.vars, mightFaultSplats: percpu.alloc(4, 4) });
    const base = memory.allocKernelText(code.bytes.length, 'runtime');
    const clock = memory.allocKernelData(16, 'clock');
    const data: Readonly<Record<string, Kaddr>> = {
      [RuntimeData.clock]: clock,
      [RuntimeData.tick]: addrAdd(clock, 8),
    };
    const linked = linkCode(code, base, (name) => data[name]);
    machine.patchText(base, linked.bytes);
    helpers = Object.fromEntries(linked.symbols.map(({ name, offset }) => [name, addrAdd(base, offset)]));
    image = memory.allocText(IMAGE_BYTES, 'image');
    traced = memory.allocKernelText(CODE_BYTES, 'traced');
    driver = memory.allocKernelText(CODE_BYTES, 'driver');
    progText = memory.allocText(3 * CODE_BYTES, 'programs');
    logs = memory.allocKernelData(3 * 8 * LOG_WORDS, 'logs');
    originalLog = memory.allocKernelData(8 * ORIGINAL_WORDS, 'log of the original');
    im = memory.kmalloc(BpfTrampImage.size, 'im');
    memory.writeU64(addrAdd(im, BpfTrampImage.pcref + PercpuRef.percpuCountPtr), BigInt(percpu.alloc(8, 8)));
    progs = [0, 1, 2].map((i) => {
      const prog = memory.kmalloc(BpfProg.size, `prog ${i}`);
      memory.writeU64(addrAdd(prog, BpfProg.active), BigInt(percpu.alloc(4, 4)));
      memory.writeU64(
        addrAdd(prog, BpfProg.stats),
        BigInt(percpu.alloc(BpfProgStats.size, BpfProgStats.align)),
      );
      return prog;
    });
  });
  afterAll(() => machine.close());

  /** Assembles at an address. */
  function write(at: Kaddr, emit: (asm: Assembler) => void): number {
    const asm = new Assembler(at, { record: false });
    piece('test', () => emit(asm))({ asm });
    machine.patchText(at, asm.bytes());
    return asm.offset;
  }

  /** A program: its cookie, then the words from two below ctx on; it returns `ret`. */
  function writeProgram(at: Kaddr, log: Kaddr, ret: bigint): void {
    write(at, (asm) => {
      asm.push(rbx);
      asm.mov(rbx, rdi);
      asm.call(helpers['bpf_get_attach_cookie'] as Kaddr, 'bpf_get_attach_cookie');
      asm.movImm64(r11, log);
      asm.mov(ptr(r11), rax);
      for (let k = 0; k < LOG_WORDS - 1; k++) {
        asm.mov(rax, ptr(rbx, 8 * (k - 2)));
        asm.mov(ptr(r11, 8 * (k + 1)), rax);
      }
      asm.movImm64(rax, ret);
      asm.pop(rbx);
      asm.ret();
    });
  }

  /** The traced function: [ENDBR], its site, then a body that logs what it was called with. */
  function writeTraced(ibt: boolean): Kaddr {
    const endbr = ibt ? [0xf3, 0x0f, 0x1e, 0xfa] : [];
    write(traced, (asm) => {
      if (ibt) asm.raw(endbr);
      asm.raw(NOP5);
      asm.movImm64(r11, originalLog);
      asm.mov(ptr(r11), rax);
      asm.mov(ptr(r11, 8), rsp);
      for (const [i, reg] of ARG_REGS.entries()) asm.mov(ptr(r11, 16 + 8 * i), reg);
      for (let k = 0; k < MAX_WORDS; k++) {
        asm.mov(rax, ptr(rsp, 8 + 8 * k));
        asm.mov(ptr(r11, 64 + 8 * k), rax);
      }
      asm.movImm64(rax, ORIGINAL_RETURNS);
      asm.ret();
    });
    return addrAdd(traced, endbr.length);
  }

  /** Calls the traced function as C would, with these words. */
  function writeDriver(regs: readonly bigint[], stack: readonly bigint[]): void {
    write(driver, (asm) => {
      asm.push(rbp);
      asm.mov(rbp, rsp);
      asm.push(rbx);
      // two words are pushed: an even number of stack words more keeps rsp on 16 bytes
      asm.aluImm8('sub', rsp, 8 + (stack.length % 2) * 8);
      for (const word of stack.toReversed()) {
        asm.movImm64(rax, word);
        asm.push(rax);
      }
      for (const [i, reg] of ARG_REGS.entries()) asm.movImm64(reg, regs[i] ?? 0xdead_0000n + BigInt(i));
      asm.movImm64(rbx, RBX);
      asm.movImm64(rax, TAIL_COUNT);
      asm.call(traced, 'traced');
      asm.movImm64(rcx, RBX);
      asm.alu('sub', rcx, rbx, 'in rcx: 0 when rbx was kept');
      asm.mov(rbx, ptr(rbp, -8));
      asm.leave64();
      asm.ret();
    });
  }

  const words = (at: Kaddr, count: number): bigint[] =>
    Array.from({ length: count }, (_, i) => machine.memory.readU64(addrAdd(at, 8 * i)));

  function run({ argSizes, flags, ibt, progs: wanted }: Situation, fmodReturns: bigint) {
    const placed = places(argSizes);
    const values = placed.map((_, i) => 0xa5a5_0000_0000_0000n + BigInt(i) * 0x0101_0101_0101n);
    const of = (word: 'reg' | 'stack'): bigint[] => values.filter((_, i) => placed[i]?.word === word);
    const refs = wanted.map(({ pair, sleepable, cookie }, i): ProgRef => {
      const bpfFunc = addrAdd(progText, i * CODE_BYTES);
      writeProgram(bpfFunc, addrAdd(logs, 8 * LOG_WORDS * i), i === 1 ? fmodReturns : 0x99n);
      return {
        prog: progs[i] as Kaddr,
        bpfFunc,
        insnsi: kaddr(0),
        sleepable,
        jited: true,
        kind: pair,
        cookie,
      };
    });
    const [fentry, fmodRet, fexit] = refs;
    const calls = (flags & CALL_ORIG) !== 0;
    const prepared = prepareTrampoline(revision, {
      image,
      imageSize: IMAGE_BYTES,
      im,
      origCall: traced,
      argSizes,
      flags,
      fentry: fentry === undefined ? [] : [fentry],
      fmodRet: calls && fmodRet !== undefined ? [fmodRet] : [],
      fexit: calls && fexit !== undefined ? [fexit] : [],
      helpers,
      config: { ibt, origCallStartsWithEndbr: ibt },
    });
    if (prepared.bytes === undefined) throw new Bug(`refused: ${prepared.why}`);
    machine.patchText(image, prepared.bytes);
    const site = writeTraced(ibt);
    machine.patchText(site, patchBytes('CALL', site, image) ?? new Uint8Array());
    writeDriver(of('reg'), of('stack'));
    for (let i = 0; i < 3 * LOG_WORDS; i++) machine.memory.writeU64(addrAdd(logs, 8 * i), 0n);
    for (let i = 0; i < ORIGINAL_WORDS; i++) machine.memory.writeU64(addrAdd(originalLog, 8 * i), 0n);
    const cpu = machine.cpus[0];
    if (cpu === undefined) throw new Bug('no CPU');
    cpu.begin(driver, []);
    const result = cpu.run();
    expect(result).toMatchObject({ reason: 'returned', fault: null });
    const seen = refs.map((_, i) => words(addrAdd(logs, 8 * LOG_WORDS * i), LOG_WORDS));
    return {
      values,
      placed,
      ret: cpu.regs.get('rax'),
      rbxGone: cpu.regs.get('rcx'),
      seen,
      original: words(originalLog, ORIGINAL_WORDS),
    };
  }

  const limit = revision === 'v6.1' ? 6 : MAX_WORDS;
  const count = (argSizes: readonly number[]): number =>
    argSizes.reduce((sum, size) => sum + Math.ceil(size / 8), 0);
  const situations: fc.Arbitrary<Situation> = fc.record({
    argSizes: fc
      .oneof(
        fc.array(fc.constantFrom(1, 2, 4, 8, 8, 8, 12, 16), { maxLength: limit }),
        // one argument more than there are registers, long and short
        fc.constantFrom(1, 4, 5, 8).map((last) => [8, 8, 16, 8, 8, last]),
      )
      .filter((argSizes) => count(argSizes) <= limit),
    flags: fc.constantFrom(
      RESTORE_REGS,
      RESTORE_REGS | IP_ARG,
      CALL_ORIG | SKIP_FRAME,
      CALL_ORIG | SKIP_FRAME | IP_ARG,
      CALL_ORIG | SKIP_FRAME | ORIG_STACK,
      CALL_ORIG | SKIP_FRAME | ORIG_STACK | IP_ARG,
    ),
    ibt: fc.boolean(),
    progs: fc.array(
      fc.record({
        pair: fc.constantFrom(...Object.values(HelperPair)),
        sleepable: fc.boolean(),
        cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      }),
      { minLength: 3, maxLength: 3 },
    ),
  });

  /** Kept as they come, but for garbage above a lone short stack word, which is cut. */
  function shown(
    values: readonly bigint[],
    placed: ReturnType<typeof places>,
    argSizes: readonly number[],
  ): bigint[] {
    const lone = placed.filter(({ word }) => word === 'stack').length === 1 && (argSizes.at(-1) ?? 0) <= 4;
    return values.map((value, i) => (lone && placed[i]?.word === 'stack' ? value & 0xffff_ffffn : value));
  }

  /** Nothing is left of the call: no reader, no run_ctx, nothing that counts as running. */
  function expectQuiet(): void {
    const task = machine.current(0);
    const { rcuReadLockNesting, trcReaderNesting, migrationDisabled } = TaskStruct;
    for (const field of [rcuReadLockNesting, trcReaderNesting, migrationDisabled]) {
      expect(machine.memory.readU32(addrAdd(task, field))).toBe(0);
    }
    expect(machine.memory.readU64(addrAdd(task, TaskStruct.bpfCtx))).toBe(0n);
    for (const prog of progs) {
      const active = Number(machine.memory.readU64(addrAdd(prog, BpfProg.active)));
      expect(machine.memory.readU32(machine.percpu.address(active, 0))).toBe(0);
    }
  }

  test('programs see words, count, address and their own cookie; the original what it was called with', () => {
    fc.assert(
      fc.property(situations, fc.boolean(), (situation, speaks) => {
        const { argSizes, flags, ibt, progs: wanted } = situation;
        const fmodReturns = speaks ? 0x5eedn : 0n;
        const { values, placed, ret, rbxGone, seen, original } = run(situation, fmodReturns);
        const calls = (flags & CALL_ORIG) !== 0;
        const args = shown(values, placed, argSizes);
        const ran = calls ? wanted : wanted.slice(0, 1);
        for (const [i, { cookie }] of ran.entries()) {
          const [ownCookie, funcIp, nrWords, ...ctx] = seen[i] as bigint[];
          expect([ownCookie, nrWords]).toEqual([cookie, BigInt(values.length)]);
          if ((flags & IP_ARG) !== 0) expect(funcIp).toBe(traced);
          expect(ctx.slice(0, values.length)).toEqual(args);
        }
        // the fexit program sees the value behind the words
        const value = calls && speaks ? fmodReturns : ORIGINAL_RETURNS;
        if (calls) expect(seen[2]?.[3 + values.length]).toBe(value);
        expect([ret, rbxGone]).toEqual([value, 0n]);
        expectQuiet();

        const reached = !(calls && speaks);
        const [, stackPointer = 0n, ...passed] = original;
        expect(stackPointer !== 0n).toBe(reached);
        if (!reached) return;
        // past the return address rsp is on 16 bytes, where the original finds words on its stack
        if (calls && placed.some(({ word }) => word === 'stack')) expect(stackPointer % 16n).toBe(8n);
        const stack = passed.slice(6);
        for (const [i, { word, index }] of placed.entries()) {
          const wantedWord = calls ? args[i] : values[i];
          expect(word === 'reg' ? passed[index] : stack[index]).toBe(wantedWord);
        }
        expect(ibt).toBe(machine.memory.bytes(traced, ENDBR_BYTES)[0] === 0xf3);
      }),
      { numRuns: 120 },
    );
  });

  test('a tail call count that comes in rax goes to the original, and back where it is not called', () => {
    const progsOf = Array(3).fill({ pair: HelperPair.RECUR, sleepable: false, cookie: 1n });
    for (const argSizes of [[], [8], [16, 8], [8, 8, 8, 8, 8]]) {
      for (const flags of [RESTORE_REGS, CALL_ORIG | SKIP_FRAME]) {
        const without = run({ argSizes, flags, ibt: false, progs: progsOf }, 0n).original;
        const kept = run({ argSizes, flags: flags | TAIL_CALL_CTX, ibt: false, progs: progsOf }, 0n).original;
        expect(kept[0]).toBe(TAIL_COUNT);
        expect(without[0]).not.toBe(TAIL_COUNT);
      }
    }
  });

  test('a program that is entered again on its CPU is skipped, but for those that may nest', () => {
    const active = machine.percpu.address(
      Number(machine.memory.readU64(addrAdd(progs[0] as Kaddr, BpfProg.active))),
      0,
    );
    for (const pair of Object.values(HelperPair)) {
      machine.memory.writeU32(active, 1);
      const one = { pair, sleepable: false, cookie: 7n };
      const { seen } = run({ argSizes: [8], flags: RESTORE_REGS, ibt: false, progs: [one, one, one] }, 0n);
      expect(seen[0]?.[0]).toBe(pair === HelperPair.RECUR ? 0n : 7n);
      expect(machine.memory.readU32(active)).toBe(1);
      machine.memory.writeU32(active, 0);
    }
  });
});
