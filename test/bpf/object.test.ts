import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type BpfObject, type BpfProgram, readBpfObject, sectionMeaning } from '../../bpf/index.ts';
import type { BpfInsn } from '../../jit/index.ts';
import { inputError } from '../obj/support.ts';
import {
  BPF_FIXTURES,
  BPF_OBJECTS,
  bpfBytes,
  bpfFixture,
  bpfObject,
  call,
  code,
  DATA_FLAGS,
  EXIT,
  functionAt,
  helper,
  insn,
  load64,
  readBuilt,
  TEXT_FLAGS,
  ZERO,
} from './object-support.ts';

const R_BPF_64_64 = 1;
const R_BPF_64_ABS64 = 2;
const R_BPF_64_32 = 10;

function program(object: BpfObject, name: string): BpfProgram {
  const found = object.programs.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no program ${name}`);
  return found;
}

const first = (object: BpfObject): BpfProgram => program(object, object.programs[0]?.name ?? '');

describe('section names', () => {
  it.each([
    ['fentry/do_unlinkat', 'fentry', 'do_unlinkat', false, 'TRACING', 'TRACE_FENTRY'],
    ['fentry.s/f', 'fentry', 'f', true, 'TRACING', 'TRACE_FENTRY'],
    ['fexit/f', 'fexit', 'f', false, 'TRACING', 'TRACE_FEXIT'],
    ['fexit.s/f', 'fexit', 'f', true, 'TRACING', 'TRACE_FEXIT'],
    ['fmod_ret/f', 'fmod_ret', 'f', false, 'TRACING', 'MODIFY_RETURN'],
    ['fmod_ret.s/f', 'fmod_ret', 'f', true, 'TRACING', 'MODIFY_RETURN'],
    ['lsm/file_open', 'lsm', 'file_open', false, 'LSM', 'LSM_MAC'],
    ['lsm.s/file_open', 'lsm', 'file_open', true, 'LSM', 'LSM_MAC'],
    ['freplace/f', 'freplace', 'f', false, 'EXT', undefined],
    ['fentry', 'fentry', undefined, false, 'TRACING', 'TRACE_FENTRY'],
    ['fentry/', 'fentry', undefined, false, 'TRACING', 'TRACE_FENTRY'],
    ['socket', 'plain', undefined, false, 'SOCKET_FILTER', undefined],
    ['xdp', 'plain', undefined, false, 'XDP', 'XDP'],
    ['tc', 'plain', undefined, false, 'SCHED_CLS', undefined],
    ['classifier', 'plain', undefined, false, 'SCHED_CLS', undefined],
    ['raw_tp/sched_switch', 'plain', 'sched_switch', false, 'RAW_TRACEPOINT', undefined],
    ['tp_btf/sched_switch', 'plain', 'sched_switch', false, 'TRACING', 'TRACE_RAW_TP'],
    ['iter.s/task', 'plain', 'task', true, 'TRACING', 'TRACE_ITER'],
    ['struct_ops/init', 'plain', 'init', false, 'STRUCT_OPS', undefined],
    ['tp/a:b/c', 'plain', 'a:b/c', false, 'TRACEPOINT', undefined],
    ['cgroup/connect4', 'plain', undefined, false, 'CGROUP_SOCK_ADDR', 'CGROUP_INET4_CONNECT'],
    ['cgroup/sendmsg6', 'plain', undefined, false, 'CGROUP_SOCK_ADDR', 'CGROUP_UDP6_SENDMSG'],
  ])('%s', (section, kind, target, sleepable, programType, attachType) => {
    const expected = { kind, target, sleepable, programType, attachType, autoload: true };
    expect(sectionMeaning(section)).toMatchObject(expected);
    expect(sectionMeaning(`?${section}`)).toMatchObject({ ...expected, autoload: false });
  });

  it('say what function of which module a program attaches to', () => {
    expect(sectionMeaning('fentry/snd:snd_open')).toMatchObject({
      target: 'snd_open',
      targetModule: 'snd',
      attachTo: 'snd_open',
    });
    expect(sectionMeaning('lsm/file_open')?.attachTo).toBe('bpf_lsm_file_open');
    expect(sectionMeaning('freplace/f')?.attachTo).toBe('f');
    expect(sectionMeaning('tp_btf/x')?.attachTo).toBeUndefined();
    expect(sectionMeaning('fexit')?.attachTo).toBeUndefined();
  });

  it.each(['', 'fentryx/f', 'xdp/f', 'socket/x', 'fentry.x/f', 'maps', '?', '??fentry/f', '/f'])(
    'does not know "%s"',
    (section) => expect(sectionMeaning(section)).toBeUndefined(),
  );
});

describe('the fixtures', () => {
  it.each(BPF_OBJECTS)('%s is whole', (name) => {
    const object = bpfFixture(name);
    expect(object.license).toBe('GPL');
    expect(object.notes).toEqual([]);
    expect(object.programs.length).toBeGreaterThan(0);
    for (const one of object.programs) {
      const { insns, subprogs, references, lineInfo, funcInfo } = one;
      // The functions lie one behind the other and cover everything.
      expect(subprogs[0]).toMatchObject({ start: 0, name: one.name });
      expect(subprogs.reduce((end, { start, length }) => (start === end ? start + length : -1), 0)).toBe(
        insns.length,
      );
      expect(funcInfo).toEqual(subprogs.map(({ start, type }) => ({ insn: start, type })));
      for (const { type, name: subprog } of subprogs) {
        expect(object.btf?.types[type ?? 0]).toMatchObject({ kind: 'func', name: subprog });
      }
      // Each function begins with a line of the source; no text is empty.
      const starts = new Set(lineInfo.map((line) => line.insn));
      expect(subprogs.every(({ start }) => starts.has(start))).toBe(true);
      expect(
        lineInfo.every(({ file, line }) => /^(\.\/)?[\w-]+\.bpf\.c$|lab\.h$/.test(file) && line > 0),
      ).toBe(true);
      // What needs an address is marked, and nothing else is.
      const marked = insns.flatMap(({ code: opcode, src }, index) =>
        (opcode === 0x18 && src !== 0) || (opcode === 0x85 && src !== 0) ? [index] : [],
      );
      const untyped = references.filter(
        (one) => one.kind === 'ksym' && object.externs[one.extern]?.type === undefined,
      );
      expect(references.map((reference) => reference.insn)).toEqual(
        [...marked, ...untyped.map((reference) => reference.insn)].sort((a, b) => a - b),
      );
    }
  });

  it('sections become programs', () => {
    const { programs } = bpfFixture('sleepable.bpf.o');
    expect(
      programs.map(({ name, section, kind, attachTo, sleepable }) => [
        name,
        section,
        kind,
        attachTo,
        sleepable,
      ]),
    ).toEqual([
      ['sleepy_entry', 'fentry.s/open_door', 'fentry', 'open_door', true],
      ['sleepy_modify', 'fmod_ret.s/open_door', 'fmod_ret', 'open_door', true],
      ['sleepy_exit', 'fexit.s/open_door', 'fexit', 'open_door', true],
      ['sleepy_lsm', 'lsm.s/door_open', 'lsm', 'bpf_lsm_door_open', true],
    ]);
    expect(
      bpfFixture('several.bpf.o').programs.map(({ name, section, autoload }) => [name, section, autoload]),
    ).toEqual([
      ['entry_one', 'fentry/open_door', true],
      ['entry_two', 'fentry/open_door', true],
      ['exit_one', 'fexit/open_door', true],
      ['exit_two', 'fexit/open_door', true],
      ['left_out', 'fentry/open_door', false],
    ]);
  });

  it('maps have their types, sizes and initial values', () => {
    const { maps } = bpfFixture('hash-map.bpf.o');
    expect(maps).toMatchObject([
      { name: 'stocks', type: 'HASH', typeId: 1, keyBytes: 8, valueBytes: 16, maxEntries: 3, flags: 0 },
    ]);
    const sizes = bpfFixture('percpu-array.bpf.o').maps[0];
    expect(sizes).toMatchObject({ type: 'PERCPU_ARRAY', keyBytes: 4, valueBytes: 8, keyType: undefined });
    expect(bpfFixture('spin-lock.bpf.o').maps[0]?.spinLockOffset).toBe(8);
    expect(bpfFixture('ringbuf.bpf.o').maps[0]).toMatchObject({
      type: 'RINGBUF',
      keyBytes: 0,
      maxEntries: 4096,
    });

    const tail = bpfFixture('tail-calls.bpf.o');
    const index = (name: string): number => tail.programs.findIndex((one) => one.name === name);
    expect(tail.maps[0]?.slots).toEqual([
      { slot: 1, kind: 'program', index: index('step_one') },
      { slot: 3, kind: 'program', index: index('again') },
    ]);
    const nested = bpfFixture('inner-maps.bpf.o').maps;
    const [blue, red, outer] = ['blue', 'red', 'outer'].map((name) =>
      nested.findIndex((map) => map.name === name),
    );
    expect(nested[outer ?? -1]).toMatchObject({
      type: 'ARRAY_OF_MAPS',
      valueBytes: 4,
      inner: { name: 'outer.inner', type: 'ARRAY', maxEntries: 2, valueBytes: 8 },
      slots: [
        { slot: 0, kind: 'map', index: blue },
        { slot: 2, kind: 'map', index: red },
      ],
    });
  });

  it('variables lie where BTF says', () => {
    const { globals } = bpfFixture('globals.bpf.o');
    expect(globals.map(({ section, kind, mapName, readOnly }) => [section, kind, mapName, readOnly])).toEqual(
      [
        ['.data', 'data', 'globals.data', false],
        ['.rodata', 'rodata', 'globals.rodata', true],
        ['.data.apart', 'data', '.data.apart', false],
        ['.rodata.limits', 'rodata', '.rodata.limits', true],
        ['.bss', 'bss', 'globals.bss', false],
        ['.bss.zeros', 'bss', '.bss.zeros', false],
        ['.rodata.cst8', 'rodata', '.rodata.cst8', true],
      ],
    );
    const [data, rodata] = globals;
    const value = (name: string): bigint | undefined => {
      const section = globals.find(({ variables }) => variables.some((one) => one.name === name));
      const one = section?.variables.find((variable) => variable.name === name);
      if (section === undefined || one === undefined) return undefined;
      const bytes = section.contents.subarray(one.offset, one.offset + one.sizeBytes);
      return bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    };
    expect(value('start')).toBe(1000n);
    expect(value('negative')).toBe(0xfffbn);
    expect(value('hidden_start')).toBe(0xffff_ffff_ffff_ffffn);
    expect(value('step')).toBe(10n);
    expect(data?.variables.find(({ name }) => name === 'hidden_start')?.linkage).toBe('static');
    expect(rodata?.variables.map(({ name, sizeBytes }) => [name, sizeBytes])).toEqual([
      ['step', 4],
      ['enabled', 1],
    ]);
    const bss = globals.find(({ section }) => section === '.bss');
    expect(bss?.contents.length).toBe(0);
    expect(bss?.variables.map(({ name }) => name).sort()).toEqual([
      'color',
      'hidden',
      'pair',
      'seen',
      'small_signed',
      'table',
      'where',
    ]);
  });

  it('subprograms stand behind each program that uses them, and only those', () => {
    const object = bpfFixture('subprogs.bpf.o');
    const names = (of: string): string[] => program(object, of).subprogs.map(({ name }) => name);
    expect(names('first_user')).toEqual(['first_user', 'deep', 'deepest', 'five_args']);
    expect(names('second_user')).toEqual(['second_user', 'deepest']);
    expect(program(object, 'first_user').subprogs.map(({ global }) => global)).toEqual([
      true,
      false,
      false,
      true,
    ]);
    for (const one of object.programs) {
      for (const reference of one.references) {
        if (reference.kind !== 'subprog-call') continue;
        const { imm } = one.insns[reference.insn] as BpfInsn;
        expect(reference.insn + 1 + imm).toBe(one.subprogs[reference.subprog]?.start);
      }
    }
    const callbacks = first(bpfFixture('loop.bpf.o'));
    const address = callbacks.references.find(({ kind }) => kind === 'subprog-addr');
    const slot = callbacks.insns[address?.insn ?? 0] as BpfInsn;
    expect(slot).toMatchObject({ code: 0x18, src: 4 });
    expect((address?.insn ?? 0) + 1 + slot.imm).toBe(callbacks.subprogs[1]?.start);
  });

  it('kernel symbols and configuration', () => {
    const ksym = bpfFixture('ksym.bpf.o');
    expect(ksym.externs).toEqual([
      { name: 'orders_sold', kind: 'variable', weak: false, type: undefined },
      { name: 'no_such_symbol', kind: 'variable', weak: true, type: undefined },
    ]);
    const kconfig = bpfFixture('kconfig.bpf.o').globals.at(-1);
    expect(kconfig).toMatchObject({ section: '.kconfig', kind: 'kconfig', readOnly: true, sizeBytes: 22 });
    // By alignment, then by size, then by name.
    expect(kconfig?.variables.map(({ name, offset, weak }) => [name, offset, weak])).toEqual([
      ['CONFIG_COFFEE', 0, true],
      ['CONFIG_HZ', 4, true],
      ['LINUX_KERNEL_VERSION', 8, false],
      ['CONFIG_PREEMPT', 12, true],
      ['CONFIG_SMP', 13, true],
      ['CONFIG_DEFAULT_HOSTNAME', 14, true],
    ]);
  });

  it('lines lead back to the source', () => {
    const { lineInfo } = program(bpfFixture('fmod-ret.bpf.o'), 'check_key');
    const source = readFileSync(`${BPF_FIXTURES}fmod-ret.bpf.c`, 'utf8').split('\n');
    expect(lineInfo.length).toBeGreaterThan(5);
    for (const { line, text } of lineInfo) expect(text).toBe(source[line - 1]);
    expect(lineInfo.map(({ text }) => text)).toContain('\trefused++;');
  });
});

describe('subprograms', () => {
  /** .text: a (calls c), b, c (calls itself); a program that calls a, then b. */
  const text = code('.text', [call(3), EXIT, ZERO, EXIT, call(-1), EXIT]);
  const functions = [functionAt('a', 0, 0, 2), functionAt('b', 0, 2, 2), functionAt('c', 0, 4, 2)];
  const main = code('fentry/f', [call(-1), call(-1), EXIT]);
  const calls = [
    { section: 1, offset: 0, type: R_BPF_64_32, symbol: 0 },
    { section: 1, offset: 8, type: R_BPF_64_32, symbol: 1 },
  ];

  it('are appended at their first call, what they call before what comes later', () => {
    const one = first(readBuilt([text, main], [...functions, functionAt('main', 1, 0, 3)], calls));
    expect(one.subprogs.map(({ name, start }) => [name, start])).toEqual([
      ['main', 0],
      ['a', 3],
      ['c', 5],
      ['b', 7],
    ]);
    expect(one.insns.map(({ imm }) => imm)).toEqual([2, 5, 0, 1, 0, -1, 0, 0, 0]);
    expect(one.references).toEqual([
      { insn: 0, kind: 'subprog-call', subprog: 1 },
      { insn: 1, kind: 'subprog-call', subprog: 3 },
      { insn: 3, kind: 'subprog-call', subprog: 2 },
      { insn: 5, kind: 'subprog-call', subprog: 2 },
    ]);
  });

  it('are found from the section symbol and the distance too, and by their address', () => {
    const symbols = [
      { name: '', section: 0, type: 3, binding: 'local' as const },
      ...functions,
      functionAt('main', 1, 0, 4),
    ];
    const one = first(
      readBuilt([text, code('fentry/f', [call(1), ...load64(32), EXIT])], symbols, [
        { section: 1, offset: 0, type: R_BPF_64_32, symbol: 0 },
        { section: 1, offset: 8, type: R_BPF_64_64, symbol: 0 },
      ]),
    );
    expect(one.subprogs.map(({ name }) => name)).toEqual(['main', 'b', 'c']);
    expect(one.insns[1]).toMatchObject({ code: 0x18, src: 4, imm: 4 });
  });

  it('outside .text cannot be called', () => {
    const other = [code('fentry/f', [call(-1), EXIT]), code('fentry/g', [EXIT])];
    const symbols = [functionAt('main', 0, 0, 2), functionAt('other', 1, 0, 1)];
    const reloc = [{ section: 0, offset: 0, type: R_BPF_64_32, symbol: 1 }];
    expect(inputError(() => readBuilt(other, symbols, reloc)).message).toMatch(
      /main, instruction 0, calls other outside \.text: a program can call only subprograms/,
    );
    expect(inputError(() => readBuilt(other, symbols)).message).toMatch(
      /main, instruction 0, calls slot 0 of fentry\/f, in a section of programs/,
    );
  });

  it('must be met at their start', () => {
    const middle = [{ section: 1, offset: 0, type: R_BPF_64_32, symbol: 0 }];
    expect(
      inputError(() =>
        readBuilt(
          [text, code('fentry/f', [call(0), EXIT])],
          [...functions, functionAt('main', 1, 0, 2)],
          middle,
        ),
      ).message,
    ).toMatch(/calls slot 1 of \.text, where no function begins/);
  });

  it('shared by many programs are bounded', () => {
    const count = 1100;
    const long = code(
      '.text',
      Array.from({ length: 1000 }, () => ZERO),
    );
    const mains = Array.from({ length: count }, (_, i) => functionAt(`m${i}`, 1, 2 * i, 2));
    const sections = [long, code('fentry/f', Array.from({ length: count }, () => [call(-1), EXIT]).flat())];
    const relocs = Array.from({ length: count }, (_, i) => ({
      section: 1,
      offset: 16 * i,
      type: R_BPF_64_32,
      symbol: 0,
    }));
    expect(
      inputError(() => readBuilt(sections, [functionAt('long', 0, 0, 1000), ...mains], relocs)).message,
    ).toMatch(/m998: the programs with their subprograms have more than 1000000 instructions/);
  });
});

describe('what is wrong in an object', () => {
  const message = (...built: Parameters<typeof readBuilt>): string =>
    inputError(() => readBuilt(...built)).message;
  const main = functionAt('main', 0, 0, 1);

  it('sections', () => {
    expect(message([code('coffee/f', [EXIT])], [main])).toMatch(
      /section coffee\/f of main names no kind of program; write SEC\("fentry\/function"\) or another of fentry, /,
    );
    expect(message([{ name: 'fentry/f', flags: TEXT_FLAGS, data: new Uint8Array(12) }], [main])).toMatch(
      /fentry\/f: 12 bytes are no whole number of instructions/,
    );
    expect(message([{ name: 'maps', data: new Uint8Array(20) }])).toMatch(
      /legacy map definitions in section maps/,
    );
    expect(message([{ name: '.maps', flags: DATA_FLAGS, data: new Uint8Array(8) }])).toMatch(
      /maps without BTF, which says what they are: compile with -g/,
    );
    expect(message([{ name: '.bss', type: 8, flags: DATA_FLAGS, size: 2 ** 40 }])).toMatch(
      /section 1 \(\.bss\) has 0x10000000000 bytes of variables; at most 64 MiB/,
    );
  });

  it('functions', () => {
    expect(message([code('fentry/f', [EXIT])], [{ ...main, binding: 'local' }])).toMatch(
      /the static function main is in a program's section: make it global, or leave out its SEC\(\)/,
    );
    expect(
      message([code('fentry/f', [EXIT, EXIT])], [functionAt('a', 0, 0, 2), functionAt('b', 0, 1, 1)]),
    ).toMatch(/b overlaps the function before it/);
    expect(message([code('fentry/f', [EXIT, EXIT])], [{ ...main, value: 4n }])).toMatch(
      /main is 8 bytes at 4, no whole instructions/,
    );
  });

  it('relocations of code', () => {
    const data = { name: '.data', flags: DATA_FLAGS, data: new Uint8Array(8) };
    const symbols = (length: number) => [
      functionAt('main', 0, 0, length),
      { name: 'x', section: 1, type: 1, size: 8 },
      { name: 'far', section: 'abs' as const, value: 8n },
      { name: 'main2', section: 0, type: 1 },
    ];
    const one = (insns: readonly BpfInsn[], type: number, symbol = 1, offset = 0): string =>
      message([code('fentry/f', insns), data], symbols(insns.length), [{ section: 0, offset, type, symbol }]);
    expect(one([ZERO, EXIT], R_BPF_64_64)).toMatch(
      /main, instruction 0, \(opcode 0xb7\) is relocated, but loads no 64-bit immediate and calls nothing/,
    );
    expect(one([...load64(), EXIT], R_BPF_64_ABS64)).toMatch(/loads a 64-bit immediate with R_BPF_64_ABS64/);
    expect(one([call(-1), EXIT], R_BPF_64_64)).toMatch(/is a call with R_BPF_64_64/);
    expect(one([call(-1), EXIT], R_BPF_64_32)).toMatch(/calls x outside \.text/);
    expect(one([helper(1), EXIT], R_BPF_64_32)).toMatch(/is a relocated call of a helper/);
    expect(one([...load64(), EXIT], R_BPF_64_64, 2)).toMatch(
      /loads the address of far, which lies in no section/,
    );
    expect(one([...load64(), EXIT], R_BPF_64_64, 3)).toMatch(
      /loads the address of main2 in section fentry\/f, which programs cannot reach/,
    );
    expect(one([...load64(8), EXIT], R_BPF_64_64)).toMatch(
      /loads the address of offset 8 of \.data, which has 8 bytes/,
    );
    expect(one([...load64(-1), EXIT], R_BPF_64_64)).toMatch(/offset -1 of \.data/);
    expect(one([...load64(), EXIT], R_BPF_64_64, 1, 4)).toMatch(/instruction 0, is relocated in its middle/);
    expect(one([EXIT, insn(0x18)], R_BPF_64_64, 1, 8)).toMatch(/\(opcode 0x18\) is relocated/);
    const twice = [0, 0].map((offset) => ({ section: 0, offset, type: R_BPF_64_64, symbol: 1 }));
    expect(message([code('fentry/f', [...load64(), EXIT]), data], symbols(3), twice)).toMatch(
      /main, instruction 0, is relocated twice/,
    );
    expect(one([...load64(), EXIT], 99)).toMatch(/with relocation type 99/);
  });

  it('undefined symbols', () => {
    expect(message([code('fentry/f', [EXIT])], [main, { name: 'gone', section: 'undef' }])).toMatch(
      /gone is not defined, and without BTF nothing says what it is: compile with -g/,
    );
  });

  it('another machine, another kind of file', () => {
    const bytes = bpfBytes('fentry.bpf.o');
    const with16 = (at: number, value: number): Uint8Array => {
      const copy = bytes.slice();
      new DataView(copy.buffer).setUint16(at, value, true);
      return copy;
    };
    const read = (from: Uint8Array): string => inputError(() => readBpfObject(from, { file: 'x' })).message;
    expect(read(with16(18, 62))).toMatch(/e_machine is 62 \(x86-64\); expected bpf/);
    expect(read(with16(5, 2))).toMatch(/EI_DATA is 2, big-endian: compile for a little-endian machine/);
    expect(read(bytes.slice(0, 100))).toMatch(/^x at offset/);
  });

  it('nothing keeps an object from being read that has no relocated code', () => {
    const object = readBuilt(
      [
        code('socket', [ZERO, EXIT, EXIT]),
        { name: '.data', flags: DATA_FLAGS, data: new Uint8Array(16) },
        { name: '.struct_ops', flags: DATA_FLAGS, data: new Uint8Array(16) },
        { name: 'license', flags: DATA_FLAGS, data: new TextEncoder().encode('Dual MIT/GPL\0rest') },
      ],
      // The last slot belongs to no function, as of a weak function that lost.
      [functionAt('main', 0, 0, 2)],
      [
        { section: 1, offset: 0, type: R_BPF_64_ABS64, symbol: 0 },
        { section: 0, offset: 16, type: R_BPF_64_64, symbol: 0 },
      ],
    );
    expect(object).toMatchObject({ license: 'Dual MIT/GPL', btf: undefined, maps: [] });
    expect(object.notes).toEqual([
      'section .struct_ops: no struct_ops map is made of it',
      'section .data: 1 pointers to variables or strings stay offsets, as with libbpf',
    ]);
    expect(object.globals[0]).toMatchObject({ mapName: 'x.data', variables: [], sizeBytes: 16 });
    expect(first(object)).toMatchObject({ kind: 'plain', lineInfo: [], funcInfo: [], references: [] });
    expect(readBpfObject(bpfObject([]), { file: 'empty' }).programs).toEqual([]);
  });
});
