/*
 * What can be said of the runtime without running it. Its behaviour is tested on the machine.
 */

import {
  Decoder,
  DecoderOptions,
  FlowControl,
  type Instruction,
  InstructionInfoFactory,
  Mnemonic,
  OpAccess,
  Register,
  RegisterExt,
} from 'iced-x86';
import { describe, expect, test } from 'vitest';
import {
  CGROUP_RUNNERS,
  type Code,
  disassemble,
  emitRuntime,
  GET_FUNC_IP,
  insnAt,
  linkCode,
  patchBytes,
  REVISIONS,
  type RevisionName,
  RUNTIME_BUGS,
  type RuntimeBug,
  RuntimeData,
  STATS_KEY,
} from '../../jit/index.ts';
import { addrAdd, type Kaddr, kaddr, toHex } from '../../lib/index.ts';
import { BUG_REVISIONS } from '../../tramp/index.ts';

const LAYOUT = { currentTask: 0x15d00, preemptCount: 0x15d08, mightFaultSplats: 0x15d10 };
const BASE = kaddr(0xffff_ffff_8110_0000n);
const DATA: Readonly<Record<string, Kaddr>> = {
  [RuntimeData.clock]: addrAdd(BASE, 0x1000),
  [RuntimeData.tick]: addrAdd(BASE, 0x1008),
};
const NAMES = [
  'sched_clock',
  'schedule',
  '__bpf_prog_enter',
  '__bpf_prog_exit',
  '__bpf_prog_enter_sleepable',
  '__bpf_prog_exit_sleepable',
  '__bpf_tramp_enter',
  '__bpf_tramp_exit',
];
const V6_NAMES = [
  ...NAMES,
  ...['recur', 'sleepable_recur', 'lsm_cgroup'].flatMap((pair) => [
    `__bpf_prog_enter_${pair}`,
    `__bpf_prog_exit_${pair}`,
  ]),
  GET_FUNC_IP,
  'bpf_get_func_arg_cnt',
  'bpf_get_func_arg',
  'bpf_get_func_ret',
  'bpf_get_attach_cookie',
  ...CGROUP_RUNNERS,
];
const NAMES_OF: Readonly<Record<RevisionName, readonly string[]>> = {
  'v5.13': NAMES,
  'v5.15': [...NAMES, GET_FUNC_IP],
  'v6.1': V6_NAMES,
  'v6.12': V6_NAMES,
};

/** Visits every instruction; it is freed afterwards. */
function forEachInsn({ bytes }: Code, visit: (insn: Instruction) => void): void {
  const decoder = new Decoder(64, bytes, DecoderOptions.None);
  decoder.ip = BASE;
  while (decoder.canDecode) {
    const insn = decoder.decode();
    visit(insn);
    insn.free();
  }
  decoder.free();
}

describe.each(REVISIONS)('the runtime of %s', (revision) => {
  const runtime = emitRuntime(revision, LAYOUT);
  const linked = linkCode(runtime, BASE, (name) => DATA[name]);
  const names = NAMES_OF[revision];

  test('a symbol for every function, on 16 bytes, apart from each other', () => {
    expect(linked.symbols.map((symbol) => symbol.name).sort()).toEqual([...names].sort());
    let end = 0;
    for (const { offset, sizeBytes } of linked.symbols) {
      expect(offset % 16).toBe(0);
      expect(offset).toBeGreaterThanOrEqual(end);
      expect(sizeBytes).toBeGreaterThan(0);
      // nothing but int3 in between
      expect(linked.bytes.subarray(end, offset).every((byte) => byte === 0xcc)).toBe(true);
      end = offset + sizeBytes;
    }
    expect(end).toBe(linked.bytes.length);
  });

  test('decodes cleanly, along the recorded instructions', () => {
    const rows = disassemble(linked.bytes, BASE);
    expect(rows.every((row) => row.valid)).toBe(true);
    expect(rows.map((row) => row.offset)).toEqual(linked.insns.map((insn) => insn.offset));
  });

  test('leaves two symbols to the linker, and no more', () => {
    const own = new Set(runtime.symbols.map((symbol) => symbol.name));
    const open = runtime.relocs.map((reloc) => reloc.symbol).filter((name) => !own.has(name));
    expect(new Set(open)).toEqual(new Set([RuntimeData.clock, RuntimeData.tick]));
    expect(linked.relocs.every((reloc) => reloc.target !== undefined)).toBe(true);
  });

  test('every function ends, and branches only within itself or to the clock', () => {
    for (const { name, offset, sizeBytes } of linked.symbols) {
      const start = addrAdd(BASE, offset);
      const rows = disassemble(linked.bytes.subarray(offset, offset + sizeBytes), start);
      expect(rows.at(-1)?.mnemonic).toBe('ret');
      for (const { mnemonic, target } of rows) {
        if (target === undefined) continue;
        const inside = target >= start && target < addrAdd(start, sizeBytes);
        const clock = addrAdd(BASE, linked.symbols.find((s) => s.name === 'sched_clock')?.offset ?? -1);
        expect([name, mnemonic === 'call' ? target === clock : inside]).toEqual([name, true]);
      }
    }
  });

  test('leaves all registers but rax, rcx and rdx, and the stack but for return addresses, to what calls programs', () => {
    const written = new Set<string>();
    const factory = new InstructionInfoFactory();
    const runners = linked.symbols.filter(({ name }) => CGROUP_RUNNERS.some((runner) => runner === name));
    const behind =
      runners.length === 0 ? BASE + BigInt(linked.bytes.length) : addrAdd(BASE, runners[0]?.offset ?? 0);
    forEachInsn(linked, (insn) => {
      if (insn.ip >= behind) return;
      const isTransfer = [FlowControl.Call, FlowControl.Return].includes(insn.flowControl);
      expect([Mnemonic.Push, Mnemonic.Pop, Mnemonic.Leave, Mnemonic.Enter]).not.toContain(insn.mnemonic);
      if (!isTransfer) expect(insn.isStackInstruction).toBe(false);
      const info = factory.info(insn);
      for (const used of info.usedRegisters() as { register: number; access: number; free(): void }[]) {
        const full = Register[RegisterExt.fullRegister(used.register)] ?? '';
        const reads = used.access === OpAccess.Read || used.access === OpAccess.CondRead;
        if (!reads && !(isTransfer && full === 'RSP')) written.add(full);
        used.free();
      }
      info.free();
    });
    factory.free();
    expect([...written].sort()).toEqual(['RAX', 'RCX', 'RDX']);
  });

  test('per-CPU data is reached through gs, at the offsets given', () => {
    const other = emitRuntime(revision, { currentTask: 0x100, preemptCount: 0x108, mightFaultSplats: 0x110 });
    const fixed = (code: Code): ReadonlySet<bigint> => {
      const offsets = new Set<bigint>();
      forEachInsn(code, (insn) => {
        if (insn.segmentPrefix === Register.GS && insn.memoryBase === Register.None) {
          offsets.add(insn.memoryDisplacement);
        }
      });
      return offsets;
    };
    expect(fixed(linked)).toEqual(new Set([0x15d00n, 0x15d08n, 0x15d10n]));
    expect(fixed(other)).toEqual(new Set([0x100n, 0x108n, 0x110n]));
  });
});

test.each(['v6.1', 'v6.12'] as const)(
  'every pair of %s measures time, but that of cgroup LSM programs; so do those who run them',
  (revision) => {
    const { sites, symbols } = emitRuntime(revision, LAYOUT);
    const holders = sites.map(
      ({ offset }) =>
        symbols.find((symbol) => offset >= symbol.offset && offset < symbol.offset + symbol.sizeBytes)?.name,
    );
    const pairs = V6_NAMES.filter((name) => name.includes('_prog_') && !name.endsWith('lsm_cgroup'));
    const timed = [...pairs, ...CGROUP_RUNNERS];
    expect(holders.sort()).toEqual(timed.sort());
  },
);

describe('static branches', () => {
  const linked = linkCode(emitRuntime('v5.15', LAYOUT), BASE, (name) => DATA[name]);

  test('one per enter and exit of either kind, a 5-byte nop while off', () => {
    expect(linked.sites.map((site) => site.name)).toEqual([STATS_KEY, STATS_KEY, STATS_KEY, STATS_KEY]);
    for (const { offset, sizeBytes } of linked.sites) {
      expect(toHex(linked.bytes.subarray(offset, offset + sizeBytes))).toBe('0f1f440000');
      expect(insnAt(linked, offset)?.offset).toBe(offset);
    }
    const holders = linked.sites.map(
      ({ offset }) =>
        linked.symbols.find((symbol) => offset >= symbol.offset && offset < symbol.offset + symbol.sizeBytes)
          ?.name,
    );
    expect(holders).toEqual([
      '__bpf_prog_enter',
      '__bpf_prog_exit',
      '__bpf_prog_enter_sleepable',
      '__bpf_prog_exit_sleepable',
    ]);
  });

  test('patched on, each jumps to an instruction of its own function that calls the clock or compares', () => {
    const on = linked.bytes.slice();
    for (const { offset, targetOffset } of linked.sites) {
      const jump = patchBytes('JUMP', addrAdd(BASE, offset), addrAdd(BASE, targetOffset ?? -1));
      on.set(jump ?? [], offset);
    }
    const rows = disassemble(on, BASE);
    expect(rows.map((row) => row.offset)).toEqual(linked.insns.map((insn) => insn.offset));
    for (const { offset, targetOffset } of linked.sites) {
      const jump = rows.find((row) => row.offset === offset);
      expect(jump).toMatchObject({ mnemonic: 'jmp', target: addrAdd(BASE, targetOffset ?? -1) });
      const there = rows.find((row) => row.offset === targetOffset);
      expect(['call', 'cmp']).toContain(there?.mnemonic);
    }
  });
});

describe('parts left out', () => {
  test('change only the functions that they are part of', () => {
    const functions = (code: Code): Record<string, string> =>
      Object.fromEntries(
        code.symbols.map(({ name, offset, sizeBytes }) => [
          name,
          disassemble(code.bytes.subarray(offset, offset + sizeBytes), kaddr(0))
            .map((row) => (row.target === undefined ? row.text : row.mnemonic))
            .join('; '),
        ]),
      );
    const changed = (
      options: Parameters<typeof emitRuntime>[2],
      revision: 'v5.15' | 'v6.1' = 'v5.15',
    ): string[] => {
      const whole = functions(emitRuntime(revision, LAYOUT));
      const less = functions(emitRuntime(revision, LAYOUT, options));
      return Object.keys(whole).filter((name) => whole[name] !== less[name]);
    };
    expect(changed({})).toEqual([]);
    expect(changed({ bugs: new Set(['L12']) })).toEqual([
      '__bpf_prog_enter_sleepable',
      '__bpf_prog_exit_sleepable',
    ]);
    expect(changed({ bugs: new Set(['L14']) }, 'v6.1')).toEqual([
      '__bpf_prog_enter',
      '__bpf_prog_exit',
      '__bpf_prog_enter_sleepable',
      '__bpf_prog_exit_sleepable',
    ]);
    expect(changed({ bugs: new Set(['L15']) }, 'v6.1')).toEqual([
      '__bpf_prog_enter_recur',
      '__bpf_prog_enter_sleepable_recur',
    ]);
    for (const bug of Object.keys(RUNTIME_BUGS) as RuntimeBug[]) {
      // those of v6 are in as many pairs as there are
      const [revision, most] =
        BUG_REVISIONS[bug] === undefined ? (['v5.15', 4] as const) : (['v6.1', 5] as const);
      const functions = changed({ bugs: new Set([bug]) }, revision);
      expect(functions.length, bug).toBeGreaterThan(0);
      expect(functions.length, bug).toBeLessThanOrEqual(most);
    }
  });
});
