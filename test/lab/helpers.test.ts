/* What programs and statistics get from the kernel: the traced function's address, and counters. */

import { describe, expect, test } from 'vitest';
import { toHex } from '../../lib/index.ts';
import { fixture, freshLab, labWith, stateOf, symbolAddress } from './support.ts';

const ASKS = 'sub rsp, 8\ncall bpf_get_func_ip\nadd rsp, 8\nret';

describe('bpf_get_func_ip', () => {
  test.each(['fentry', 'fmod_ret', 'fexit'] as const)(
    'v5.15, %s: the entry of the traced function',
    async (kind) => {
      const lab = await freshLab({ revision: 'v5.15' });
      const target = lab.load(fixture('demo.o'));
      const asks = await lab.assemble('asks', ASKS);
      expect(asks.callsGetFuncIp).toBe(true);
      for (const name of ['schedule_coffee', 'shave_yak', 'cpu_is_awake']) lab.attach(kind, name, asks);
      for (const [name, args] of [
        ['schedule_coffee', [1, 2, 3]],
        ['shave_yak', [0]],
        ['cpu_is_awake', [0]],
      ] as const) {
        const { seen, fault } = lab.call(name, args, { watch: true });
        expect(fault).toBeNull();
        expect(seen[0]?.returned).toBe(symbolAddress(target, name));
      }
    },
  );

  test('one program that asks is enough; the image changes back when it is detached', async () => {
    const lab = await freshLab();
    lab.load(fixture('demo.o'));
    const quiet = await lab.assemble('quiet', 'xor eax, eax\nret');
    lab.attach('fexit', 'schedule_coffee', quiet);
    const without = lab.trampolines()[0]?.length ?? 0;
    const attachment = lab.attach('fentry', 'schedule_coffee', await lab.assemble('asks', ASKS));
    const both = lab.trampolines()[0]?.length ?? 0;
    attachment.detach();
    lab.attach('fentry', 'schedule_coffee', quiet);
    const quietBoth = lab.trampolines()[0]?.length ?? 0;
    // Saving the address takes instructions of its own; detaching the one that asks takes them away again.
    expect(both).toBeGreaterThan(quietBoth);
    expect(quietBoth).toBeGreaterThan(without);
  });

  test('from an object: the reference in a function decides, function by function', async () => {
    const lab = await freshLab();
    const target = lab.load(fixture('demo.o'));
    const object = lab.loadPrograms('asks.o', objectThatAsks());
    expect([object.program('asks').callsGetFuncIp, object.program('quiet').callsGetFuncIp]).toEqual([
      true,
      false,
    ]);
    lab.attach('fexit', 'shave_yak', object.program('asks'));
    expect(lab.call('shave_yak', [0], { watch: true }).seen[0]?.returned).toBe(
      symbolAddress(target, 'shave_yak'),
    );
  });

  test('v5.13 has no such helper', async () => {
    const lab = await freshLab({ revision: 'v5.13' });
    lab.load(fixture('demo.o'));
    const before = stateOf(lab);
    await expect(lab.assemble('asks', ASKS)).rejects.toThrow('bpf_get_func_ip');
    expect(() => lab.loadPrograms('asks.o', objectThatAsks())).toThrow('bpf_get_func_ip');
    expect(stateOf(lab)).toEqual(before);
  });
});

/**
 * A relocatable object of two functions: `asks` calls bpf_get_func_ip and gives its result, `quiet` gives 0.
 * Put together here as gcc would: .text, .rela.text, symbols.
 */
function objectThatAsks(): Uint8Array {
  const names = ['', '.text', '.rela.text', '.symtab', '.strtab', 'asks', 'quiet', 'bpf_get_func_ip'];
  const strings = Buffer.from(`${names.join('\0')}\0`);
  const nameAt = (name: string): number => strings.indexOf(`\0${name}\0`) + 1;
  // sub rsp, 8; call bpf_get_func_ip; add rsp, 8; ret | xor eax, eax; ret
  const text = Buffer.from('4883ec08e8000000004883c408c3' + '31c0c3', 'hex');
  const symbol = (name: string, info: number, section: number, value: number, size: number): Buffer => {
    const entry = Buffer.alloc(24);
    entry.writeUInt32LE(name === '' ? 0 : nameAt(name), 0);
    entry[4] = info;
    entry.writeUInt16LE(section, 6);
    entry.writeBigUInt64LE(BigInt(value), 8);
    entry.writeBigUInt64LE(BigInt(size), 16);
    return entry;
  };
  const GLOBAL_FUNC = 0x12;
  const symbols = Buffer.concat([
    symbol('', 0, 0, 0, 0),
    symbol('asks', GLOBAL_FUNC, 1, 0, 14),
    symbol('quiet', GLOBAL_FUNC, 1, 14, 3),
    symbol('bpf_get_func_ip', 0x10, 0, 0, 0),
  ]);
  const rela = Buffer.alloc(24);
  rela.writeBigUInt64LE(5n, 0);
  rela.writeBigUInt64LE((3n << 32n) | 4n, 8); // symbol 3, R_X86_64_PLT32
  rela.writeBigInt64LE(-4n, 16);

  const parts = [text, rela, symbols, strings];
  let at = 64;
  const offsets = parts.map((part) => {
    const offset = at;
    at += (part.length + 7) & ~7;
    return offset;
  });
  const section = (name: string, fields: readonly number[]): Buffer => {
    const [type = 0, flags = 0, part = -1, link = 0, info = 0, entsize = 0] = fields;
    const header = Buffer.alloc(64);
    header.writeUInt32LE(name === '' ? 0 : nameAt(name), 0);
    header.writeUInt32LE(type, 4);
    header.writeBigUInt64LE(BigInt(flags), 8);
    header.writeBigUInt64LE(BigInt(offsets[part] ?? 0), 24);
    header.writeBigUInt64LE(BigInt(parts[part]?.length ?? 0), 32);
    header.writeUInt32LE(link, 40);
    header.writeUInt32LE(info, 44);
    header.writeBigUInt64LE(part < 0 ? 0n : 8n, 48);
    header.writeBigUInt64LE(BigInt(entsize), 56);
    return header;
  };
  const headers = [
    section('', []),
    section('.text', [1, 6, 0]), // PROGBITS, ALLOC | EXECINSTR
    section('.rela.text', [4, 0, 1, 3, 1, 24]),
    section('.symtab', [2, 0, 2, 4, 1, 24]),
    section('.strtab', [3, 0, 3]),
  ];
  const file = Buffer.alloc(at + 64 * headers.length);
  Buffer.from('7f454c46020101', 'hex').copy(file);
  file.writeUInt16LE(1, 16); // ET_REL
  file.writeUInt16LE(62, 18); // EM_X86_64
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(BigInt(at), 40);
  file.writeUInt16LE(64, 52);
  file.writeUInt16LE(64, 58);
  file.writeUInt16LE(headers.length, 60);
  file.writeUInt16LE(4, 62); // names are in .strtab too
  parts.forEach((part, i) => {
    part.copy(file, offsets[i] ?? 0);
  });
  headers.forEach((header, i) => {
    header.copy(file, at + 64 * i);
  });
  return new Uint8Array(file);
}

describe('run-time statistics', () => {
  test('count runs and time only while they are on', async () => {
    const { lab, probes } = await labWith('demo.o', { cpus: 2 });
    const text = (): string[] =>
      Object.entries(lab.kernel.helpers).map(([name, address]) => {
        const size = lab.kernel.kallsyms.named(name)?.sizeBytes ?? 0;
        return `${name} ${toHex(lab.machine.memory.bytes(address, size))}`;
      });
    const off = text();
    const attachments = [
      lab.attach('fentry', 'schedule_coffee', probes.program('coffee_entry')),
      lab.attach('fexit', 'schedule_coffee', probes.program('coffee_exit'), { sleepable: true }),
    ];
    const count = (cpu: number): (readonly [bigint, bigint])[] =>
      attachments.map(({ prog }) => {
        const { runs, nsecs } = prog.counters(cpu);
        return [runs, nsecs];
      });
    const call = (cpu: number): void => {
      expect(lab.call('schedule_coffee', [0, 0, 1], { cpu }).fault).toBeNull();
    };
    call(0);
    expect(count(0)).toEqual([
      [0n, 0n],
      [0n, 0n],
    ]);
    lab.kernel.statsEnabled = true;
    expect(lab.kernel.statsEnabled).toBe(true);
    expect(text()).not.toEqual(off);
    for (let i = 0; i < 3; i++) call(0);
    call(1);
    // The clock moves by 10 ns each time it is read: before and after a program.
    expect(count(0)).toEqual([
      [3n, 30n],
      [3n, 30n],
    ]);
    expect(count(1)).toEqual([
      [1n, 10n],
      [1n, 10n],
    ]);
    lab.kernel.statsEnabled = false;
    expect(text()).toEqual(off);
    call(0);
    expect(count(0)[0]).toEqual([3n, 30n]);
  });

  test('a skipped run is a miss and no run', async () => {
    const { lab, probes } = await labWith('demo.o');
    lab.kernel.statsEnabled = true;
    const attachment = lab.attach('fentry', 'schedule_coffee', probes.program('coffee_nested'));
    lab.call('schedule_coffee', [0, 0, 1]);
    expect(attachment.prog.counters(0)).toMatchObject({ runs: 1n, misses: 1n });
  });
});
