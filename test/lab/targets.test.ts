/* Where traced functions come from: objects of many kinds, an image, text; and how they go away. */

import { describe, expect, test } from 'vitest';
import { InputError } from '../../lib/index.ts';
import {
  fixture,
  freshLab,
  kernelError,
  labWith,
  NOP5,
  siteBytes,
  stateOf,
  symbolAddress,
} from './support.ts';

const PROBE = 'xor eax, eax\nret';

describe('objects', () => {
  test.each(['demo.o', 'demo-patchable.o', 'demo-no-table.o', 'demo.image'])('%s', async (name) => {
    const lab = await freshLab();
    const target = lab.load(fixture(name));
    const attachment = lab.attach('fexit', 'schedule_coffee', await lab.assemble('probe', PROBE));
    const { ret, seen } = lab.call('schedule_coffee', [2, -1, 300], { watch: true });
    expect(ret).toBe(65n);
    expect(seen).toMatchObject([{ args: [2n, 0xffff_ffffn, 300n], ret: 65n }]);
    attachment.detach();
    expect(siteBytes(lab, target, 'schedule_coffee')).toBe(NOP5);
  });

  test('without BTF, a prototype says what the arguments are', async () => {
    const lab = await freshLab();
    lab.load(fixture('demo-no-btf.o'));
    const probe = await lab.assemble('probe', PROBE);
    expect(() => lab.attach('fentry', 'schedule_coffee', probe)).toThrow('no prototype of schedule_coffee');
    // Without one a call passes words as they are.
    expect(lab.call('schedule_coffee', [2, -1, 300]).ret).toBe(65n);
    lab.prototype('int schedule_coffee(u8 cups, int sugar, u64 deadline)');
    lab.attach('fentry', 'schedule_coffee', probe);
    const { seen, ret } = lab.call('schedule_coffee', [2, -1, 300], { watch: true });
    expect(ret).toBe(65n);
    expect(seen[0]?.args).toEqual([2n, 0xffff_ffffn, 300n]);
    expect(() => lab.call('schedule_coffee', [256, 0, 0])).toThrow('cannot hold 256');
  });

  test('targets without BTF have a key of their own for every function', async () => {
    const lab = await freshLab();
    lab.load(fixture('demo-no-btf.o'));
    const probe = await lab.assemble('probe', PROBE);
    for (const model of ['u64 shave_yak(u32 depth)', 'bool cpu_is_awake(int cpu)']) lab.prototype(model);
    for (const name of ['shave_yak', 'cpu_is_awake']) lab.attach('fentry', name, probe);
    expect(new Set(lab.trampolines().map(({ key }) => key)).size).toBe(2);
    expect(lab.call('shave_yak', [5], { watch: true }).seen.map(({ args }) => args)).toEqual(
      [5n, 4n, 3n, 2n, 1n, 0n].map((depth) => [depth]),
    );
  });

  test('a name that two targets have is refused, saying which', async () => {
    const lab = await freshLab();
    lab.load(fixture('demo.o'));
    lab.load(fixture('demo.o'));
    expect(() => lab.call('schedule_coffee', [1, 2, 3])).toThrow('schedule_coffee is in demo and in demo.2');
    lab.load(fixture('demo.image'));
    const before = stateOf(lab);
    expect(() => lab.load(fixture('demo.image'))).toThrow(InputError);
    expect(stateOf(lab)).toEqual(before);
  });

  test('files that are none are refused and leave nothing behind', async () => {
    const lab = await freshLab();
    const before = stateOf(lab);
    expect(() => lab.load('nowhere.o')).toThrow('nowhere.o: no such file');
    expect(() => lab.load(fixture(''))).toThrow('is a folder');
    expect(() => lab.load(fixture('demo.c'))).toThrow('no ELF file');
    expect(() => lab.loadPrograms(fixture('probes.o'))).toThrow('schedule_coffee');
    expect(stateOf(lab)).toEqual(before);
  });
});

describe('text', () => {
  test('labels are functions; call __fentry__ makes them traceable', async () => {
    const lab = await freshLab();
    const target = await lab.loadText(`
      doubled:  call __fentry__
                lea rax, [rdi + rdi]
                ret
      untraced: mov eax, 3
                ret
      twice:    call  __fentry__          # two blanks
                sub rsp, 8
                call doubled
                mov rdi, rax
                call doubled
                add rsp, 8
      .end:     ret`);
    expect(target.module.contents.functions.map(({ name }) => name)).toEqual([
      'doubled',
      'untraced',
      'twice',
    ]);
    expect(siteBytes(lab, target, 'doubled')).toBe(NOP5);
    lab.prototype('u64 doubled(u64 x)');
    lab.prototype('u64 twice(u64 x)');
    lab.prototype('int untraced(void)');
    const probe = await lab.assemble('probe', PROBE);
    for (const kind of ['fentry', 'fexit'] as const) {
      for (const name of ['doubled', 'twice']) lab.attach(kind, name, probe);
    }
    const { ret, seen } = lab.call('twice', [10], { watch: true });
    expect(ret).toBe(40n);
    expect(seen.map((run) => [run.target, run.kind, run.args[0], run.ret])).toEqual([
      ['twice', 'fentry', 10n, undefined],
      ['doubled', 'fentry', 10n, undefined],
      ['doubled', 'fexit', 10n, 20n],
      ['doubled', 'fentry', 20n, undefined],
      ['doubled', 'fexit', 20n, 40n],
      ['twice', 'fexit', 10n, 40n],
    ]);
    expect(kernelError(() => lab.attach('fentry', 'untraced', probe)).code).toBe('EINVAL');
  });

  test('bad text is refused by line and leaves nothing behind', async () => {
    const lab = await freshLab();
    const before = stateOf(lab);
    await expect(lab.loadText('f: ret\nfrobnicate rax', 'bad.s')).rejects.toThrow('bad.s line 2');
    await expect(lab.loadText('ret')).rejects.toThrow('no function: write a label');
    await expect(lab.loadText('# nothing')).rejects.toThrow('no instruction in it');
    await expect(lab.assemble('p', 'call nowhere')).rejects.toThrow('nowhere');
    // Only functions have sites: a program is no target.
    await expect(lab.assemble('p', 'call __fentry__\nret')).rejects.toThrow('__fentry__');
    expect(stateOf(lab)).toEqual(before);
  });

  test('text may call what is loaded', async () => {
    const { lab } = await labWith('demo.o');
    await lab.loadText('ten: mov edi, 10\nsub rsp, 8\ncall shave_yak\nadd rsp, 8\nret');
    expect(lab.call('ten').ret).toBe(3628800n);
  });
});

describe('unloading', () => {
  test('a module cannot go while a function of it is traced', async () => {
    const lab = await freshLab();
    const target = lab.load(fixture('demo.o'), { as: 'module' });
    const probe = await lab.assemble('probe', PROBE);
    const entry = symbolAddress(target, 'schedule_coffee');
    const attached = ['schedule_coffee', 'grind_beans'].map((name) => lab.attach('fentry', name, probe));
    expect(target.module.references).toBe(2);
    const before = stateOf(lab);
    expect(kernelError(() => lab.unload(target)).message).toContain('2 trampolines hold it');
    expect(stateOf(lab)).toEqual(before);
    for (const attachment of attached) attachment.detach();
    expect(target.module.references).toBe(0);

    lab.unload(target);
    expect(() => lab.call('schedule_coffee', [1, 2, 3])).toThrow('no target is loaded');
    expect(() => lab.unload(target)).toThrow('demo is not loaded');
    const { fault } = lab.machine.cpus[0]?.call(entry) ?? {};
    expect(fault?.kind).toBe('freed-image');
    expect(fault?.detail).toContain('demo');
  });

  test('a target loaded later gets keys of its own', async () => {
    const lab = await freshLab();
    const probe = await lab.assemble('probe', PROBE);
    const first = lab.load(fixture('demo.o'), { as: 'module' });
    const second = lab.load(fixture('wide.o'), { as: 'module' });
    lab.unload(first);
    const third = lab.load(fixture('demo.o'), { as: 'module' });
    expect([second.objId, third.objId]).toEqual([2, 3]);
    lab.attach('fentry', 'schedule_coffee', probe);
    expect(lab.call('schedule_coffee', [1, 0, 1]).ret).toBe(27n);
  });

  test('kernel text stays', async () => {
    const lab = await freshLab();
    for (const name of ['demo.image', 'wide.o']) {
      const target = lab.load(fixture(name));
      const before = stateOf(lab);
      expect(kernelError(() => lab.unload(target)).message).toContain('it is kernel text');
      expect(stateOf(lab)).toEqual(before);
    }
  });
});

test('variables of program objects, as BTF has them', async () => {
  const { lab, probes } = await labWith('demo.o');
  lab.attach('fexit', 'schedule_coffee', probes.program('coffee_exit'));
  lab.call('schedule_coffee', [1, 0, 0]);
  const globals = new Map(probes.globals().map((variable) => [variable.name, variable]));
  const int = { sizeBytes: 4, signed: true, pointer: false };
  const u64 = { sizeBytes: 8, signed: false, pointer: false };
  expect(globals.get('exit_result')).toMatchObject({ scalar: int, isArray: false });
  expect([...(globals.get('exit_result')?.bytes ?? [])]).toEqual([0xc2, 0xff, 0xff, 0xff]);
  expect(globals.get('seen')).toMatchObject({ scalar: u64, isArray: true });
  expect(globals.get('seen')?.bytes).toHaveLength(56);
  expect(globals.get('unlucky_cups')?.bytes).toEqual(Uint8Array.of(13));
});
