/* What programs and functions get from v6 kernels: cookies, addresses, counts, structs, twelve words. */

import { describe, expect, test } from 'vitest';
import type { Attachment, Lab } from '../../lab/index.ts';
import { addrAdd } from '../../lib/index.ts';
import { freshLab, kernelError, NOP5, siteBytes, stateOf, symbolAddress } from './support.ts';

const V6 = ['v6.1', 'v6.12'] as const;
const aligned = (body: string): string => `sub rsp, 8\n${body}\nadd rsp, 8\nret`;
/** Counts its runs in the u64 at an address, then does something. */
const counting = (at: bigint, body = 'xor eax, eax'): string =>
  aligned(`movabs rax, ${at}\ninc qword ptr [rax]\n${body}`);

async function traced(revision: (typeof V6)[number], source: string, ...prototypes: string[]): Promise<Lab> {
  const lab = await freshLab({ revision });
  await lab.loadText(source, 'target.s');
  for (const text of prototypes) lab.prototype(text);
  return lab;
}

const misses = ({ prog }: Attachment): bigint => prog.counters(0).misses;

describe.each(V6)('%s', (revision) => {
  const F = 'f: call __fentry__\nlea rax, [rdi + rsi]\nret';
  const PROTO = 'long f(long a, long b)';

  test('each attachment has its cookie, and its program is answered that one', async () => {
    const lab = await traced(revision, F, PROTO);
    const asks = await lab.assemble('asks', aligned('call bpf_get_attach_cookie'));
    const cookies = [0n, 1n, 0x1234_5678_9abc_def0n, 0xffff_ffff_ffff_ffffn];
    const attached = cookies.map((cookie) => lab.attach('fexit', 'f', asks, { cookie }));
    expect(attached.map(({ cookie }) => cookie)).toEqual(cookies);
    const { seen, ret } = lab.call('f', [1, 2], { watch: true });
    expect(ret).toBe(3n);
    // newest first
    expect(seen.map(({ returned }) => returned)).toEqual(cookies.toReversed());
    expect(seen.map(({ cookie }) => cookie)).toEqual(cookies.toReversed());
  });

  test('a program inside of another gets its own cookie, and the outer one its own back', async () => {
    const lab = await traced(
      revision,
      `${F}\ng: call __fentry__\nmov rax, rdi\nret`,
      PROTO,
      'long g(long a)',
    );
    const asks = await lab.assemble('asks', aligned('call bpf_get_attach_cookie'));
    const outer = await lab.assemble('outer', aligned('mov edi, 7\ncall g\ncall bpf_get_attach_cookie'));
    lab.attach('fentry', 'g', asks, { cookie: 22 });
    lab.attach('fexit', 'f', outer, { cookie: 11 });
    const { seen } = lab.call('f', [1, 2], { watch: true });
    expect(seen.map(({ program, depth, returned }) => [program, depth, returned])).toEqual([
      ['outer', 0, 11n],
      ['asks', 1, 22n],
    ]);
    const task = lab.machine.current(0);
    expect(lab.machine.memory.readU64((task + 16n) as typeof task)).toBe(0n);
  });

  test('a cookie is a number of 64 bits', async () => {
    const lab = await traced(revision, F, PROTO);
    const code = await lab.assemble('p', 'xor eax, eax\nret');
    for (const cookie of [-1, 1n << 64n, 1.5]) {
      expect(() => lab.attach('fentry', 'f', code, { cookie })).toThrow('is no 64-bit number');
    }
    expect(lab.attachments()).toEqual([]);
  });

  test.each(['fentry', 'fmod_ret', 'fexit'] as const)(
    '%s: the address of the traced function',
    async (kind) => {
      const lab = await traced(revision, F, PROTO);
      const asks = await lab.assemble('asks', aligned('call bpf_get_func_ip'));
      lab.attach(kind, 'f', asks);
      const { seen } = lab.call('f', [1, 2], { watch: true });
      const [target] = lab.kernel.modules;
      expect(seen[0]?.returned).toBe(target?.symbol('f')?.address);
    },
  );

  test('the number of argument words, and one of them', async () => {
    const lab = await traced(revision, F, PROTO);
    const count = await lab.assemble('count', aligned('call bpf_get_func_arg_cnt'));
    const second = await lab.assemble(
      'second',
      'push rdi\nmov esi, 1\nmov rdx, rsp\ncall bpf_get_func_arg\npop rax\nret',
    );
    lab.attach('fentry', 'f', count);
    lab.attach('fentry', 'f', second);
    const { seen } = lab.call('f', [40, 50], { watch: true });
    expect(seen.map(({ returned }) => returned)).toEqual([50n, 2n]);
  });

  test('an LSM program that calls its hook runs again; a tracing program is missed', async () => {
    const lab = await traced(revision, F, PROTO);
    const at = lab.machine.memory.kmalloc(16, 'counters');
    const inner = (address: bigint): string =>
      counting(address, 'cmp qword ptr [rax], 3\njae 1f\nmov edi, 1\nmov esi, 1\ncall f\n1: xor eax, eax');
    const nests = await lab.assemble('nests', inner(at).replaceAll('1f', 'out').replaceAll('1:', 'out:'));
    const lsm = lab.attach('lsm', 'f', nests);
    expect(lab.call('f', [1, 2]).ret).toBe(3n);
    expect([lab.machine.memory.readU64(at), misses(lsm)]).toEqual([3n, 0n]);
    lsm.detach();
    lab.machine.memory.writeU64(at, 0n);
    const tracing = lab.attach('fmod_ret', 'f', nests);
    expect(lab.call('f', [1, 2]).ret).toBe(3n);
    expect([lab.machine.memory.readU64(at), misses(tracing)]).toEqual([1n, 1n]);
  });

  test.each([
    ['tracing', false, '_recur'],
    ['other', false, '_recur'],
    ['ext', true, '_sleepable_recur'],
    ['iter', false, ''],
    ['lsm', true, '_sleepable'],
    ['struct_ops', false, ''],
    ['lsm_cgroup', true, '_lsm_cgroup'],
  ] as const)(
    'a program of type %s, sleepable %s, is entered by __bpf_prog_enter%s',
    async (type, sleepable, suffix) => {
      const lab = await traced(revision, F, PROTO);
      const code = await lab.assemble('p', 'xor eax, eax\nret');
      lab.attach('fentry', 'f', code, { type, sleepable });
      const calls = lab.listing('f').flatMap(({ instruction }) => /__bpf_prog_\w+/.exec(instruction) ?? []);
      expect(calls).toEqual([`__bpf_prog_enter${suffix}`, `__bpf_prog_exit${suffix}`]);
      const { seen, fault } = lab.call('f', [1, 2], { watch: true });
      expect([seen.length, fault]).toEqual([1, null]);
    },
  );

  test('structs by value: programs see them, the function gets them', async () => {
    const lab = await traced(
      revision,
      // a.first + a.second * 2 + b * 3 + c.low * 4
      'f: call __fentry__\nlea rax, [rdi + rsi * 2]\nlea rdx, [rdx + rdx * 2]\nadd rax, rdx\nlea rax, [rax + rcx * 4]\nret',
      'long f(struct pair { long first, second; } a, long b, struct small { int low; } c)',
    );
    const quiet = await lab.assemble('quiet', 'xor eax, eax\nret');
    for (const kind of ['fentry', 'fmod_ret', 'fexit'] as const) lab.attach(kind, 'f', quiet);
    const pair = new Uint8Array(16);
    pair.set([5], 0);
    pair.set([6], 8);
    const { seen, ret, args } = lab.call('f', [{ bytes: pair }, 7, { bytes: Uint8Array.of(8, 0, 0, 0) }], {
      watch: true,
    });
    expect(ret).toBe(5n + 12n + 21n + 32n);
    const values = [5n | (6n << 64n), 7n, 8n];
    expect(args).toEqual(values);
    expect(seen.map((run) => [run.kind, run.args, run.ret])).toEqual([
      ['fentry', values, undefined],
      ['fmod_ret', values, 0n],
      ['fexit', values, ret],
    ]);
    expect(() => lab.call('f', [{ bytes: pair.subarray(1) }, 7, 8])).toThrow('has 16 bytes, not 15');
    expect(lab.call('f', [1, 2, 3]).ret).toBe(1n + 6n + 12n);
    expect(() => lab.call('f', [1n << 128n, 2, 3])).toThrow('cannot hold');
  });

  test('six words of structs fit, seven do not fit six registers', async () => {
    const lab = await traced(
      revision,
      'f: call __fentry__\nmov rax, r9\nret',
      'long f(struct a { long x, y; } a, struct b { long x, y; } b, struct c { long x, y; } c)',
    );
    lab.attach('fexit', 'f', await lab.assemble('quiet', 'xor eax, eax\nret'));
    const value = (low: bigint, high: bigint): bigint => low | (high << 64n);
    const { seen, ret } = lab.call('f', [value(1n, 2n), value(3n, 4n), value(5n, 6n)], { watch: true });
    expect([ret, seen[0]?.args[2]]).toEqual([6n, value(5n, 6n)]);
  });

  test('a bare nop behind an ENDBR, and a site behind one, where the kernel is built for IBT', async () => {
    const lab = await freshLab({ revision, config: { ibt: true } });
    const target = await lab.loadText(
      'f: endbr64\ncall __fentry__\nlea rax, [rdi + rsi]\nret\ng: endbr64\nnop dword ptr [rax + rax]\nnop\nmov rax, rdi\nret',
      'ibt.s',
    );
    // text has no way to write the nop of five bytes
    lab.machine.patchText(addrAdd(symbolAddress(target, 'g'), 4), Buffer.from(NOP5, 'hex'));
    lab.prototype(PROTO);
    lab.prototype('long g(long a)');
    const quiet = await lab.assemble('quiet', 'xor eax, eax\nret');
    for (const name of ['f', 'g'] as const) {
      const before = siteBytes(lab, target, name);
      const attached = [lab.attach('fexit', name, quiet), lab.attach('fentry', name, quiet)];
      const entry = lab.machine.memory.bytes(symbolAddress(target, name), 9);
      expect([...entry.subarray(0, 4)]).toEqual([0xf3, 0x0f, 0x1e, 0xfa]);
      expect(entry[4]).toBe(0xe8);
      const { ret, seen } = lab.call(name, name === 'f' ? [4, 5] : [9], { watch: true });
      expect([ret, seen.map(({ kind }) => kind)]).toEqual([9n, ['fentry', 'fexit']]);
      for (const each of attached) each.detach();
      expect(siteBytes(lab, target, name)).toBe(before);
      expect(Buffer.from(entry.subarray(4)).toString('hex')).toBe(NOP5);
    }
  });

  test('a return thunk', async () => {
    const lab = await freshLab({ revision, config: { rethunk: true } });
    await lab.loadText(F, 'target.s');
    lab.prototype(PROTO);
    lab.attach('fexit', 'f', await lab.assemble('quiet', 'xor eax, eax\nret'));
    expect(lab.listing('f').at(-1)?.instruction).toMatch(/jmp.*x86_return_thunk/);
    expect(lab.call('f', [1, 2]).ret).toBe(3n);
  });
});

describe('twelve words', () => {
  const NAMES = Array.from({ length: 12 }, (_, i) => `a${i + 1}`);
  const SUM = `f: call __fentry__
    lea rax, [rdi + rsi]
    add rax, rdx
    add rax, rcx
    add rax, r8
    add rax, r9
    add rax, [rsp + 8]
    add rax, [rsp + 16]
    add rax, [rsp + 24]
    add rax, [rsp + 32]
    add rax, [rsp + 40]
    lea rax, [rax + rax * 2]
    add rax, [rsp + 48]
    ret`;
  const PROTO = `long f(${NAMES.map((name) => `long ${name}`).join(', ')})`;
  const VALUES = NAMES.map((_, i) => BigInt(i + 1) << BigInt(4 * i));
  const sum = 3n * VALUES.slice(0, 11).reduce((total, value) => total + value, 0n) + (VALUES[11] ?? 0n);

  test('v6.12: programs see all of them, the function gets them', async () => {
    const lab = await traced('v6.12', SUM, PROTO);
    expect(lab.call('f', VALUES).ret).toBe(sum);
    const quiet = await lab.assemble('quiet', 'xor eax, eax\nret');
    for (const kind of ['fentry', 'fmod_ret', 'fexit'] as const) {
      const attachment = lab.attach(kind, 'f', quiet);
      const { ret, seen } = lab.call('f', VALUES, { watch: true });
      expect([ret, seen.map(({ args }) => args)], kind).toEqual([sum, [VALUES]]);
      // not stepped, too
      expect(lab.call('f', VALUES).ret).toBe(sum);
      attachment.detach();
    }
  });

  test('v6.12: a struct that does not fit the registers left goes on the stack, and a word behind it in one', async () => {
    const lab = await traced(
      'v6.12',
      'f: call __fentry__\nmov rax, [rsp + 8]\nimul rax, rax, 100\nadd rax, [rsp + 16]\nadd rax, r9\nret',
      'long f(long a, long b, long c, long d, long e, struct s { long x, y; } s, long last)',
    );
    lab.attach('fexit', 'f', await lab.assemble('quiet', 'xor eax, eax\nret'));
    const values = [1n, 2n, 3n, 4n, 5n, 6n | (7n << 64n), 8000n];
    const { ret, seen } = lab.call('f', values, { watch: true });
    expect([ret, seen[0]?.args]).toEqual([8607n, values]);
  });

  test.each([
    ['v5.15', 'arch_prepare_bpf_trampoline'],
    ['v6.1', 'arch_prepare_bpf_trampoline'],
  ] as const)('%s refuses seven, and nothing is left', async (revision, op) => {
    const lab = await freshLab({ revision });
    await lab.loadText(SUM, 'target.s');
    lab.prototype(PROTO);
    const code = await lab.assemble('quiet', 'xor eax, eax\nret');
    const before = stateOf(lab);
    expect(kernelError(() => lab.attach('fentry', 'f', code))).toMatchObject({ code: 'ENOTSUPP', op });
    expect(stateOf(lab)).toEqual(before);
    expect(lab.call('f', VALUES).ret).toBe(sum);
  });

  test('v6.12 refuses thirteen words, when it is asked for the size', async () => {
    const args = NAMES.slice(1).map((name) => `long ${name}`);
    const lab = await traced('v6.12', SUM, `long f(struct s { long x, y; } s, ${args.join(', ')})`);
    const code = await lab.assemble('quiet', 'xor eax, eax\nret');
    const before = stateOf(lab);
    expect(kernelError(() => lab.attach('fentry', 'f', code))).toMatchObject({
      code: 'ENOTSUPP',
      op: 'arch_bpf_trampoline_size',
    });
    expect(stateOf(lab)).toEqual(before);
  });
});

describe.each(['v5.13', 'v5.15'] as const)('%s has none of it', (revision) => {
  test('cookies, structs', async () => {
    const lab = await freshLab({ revision });
    await lab.loadText('f: call __fentry__\nmov rax, rdi\nret', 'target.s');
    lab.prototype('long f(struct s { long x; } s)');
    const code = await lab.assemble('quiet', 'xor eax, eax\nret');
    const before = stateOf(lab);
    expect(kernelError(() => lab.attach('fentry', 'f', code))).toMatchObject({
      code: 'EINVAL',
      op: 'btf_distill_func_proto',
    });
    expect(stateOf(lab)).toEqual(before);
    await lab.loadText('g: call __fentry__\nmov rax, rdi\nret', 'g.s');
    lab.prototype('long g(long a)');
    expect(() => lab.attach('fentry', 'g', code, { cookie: 1 })).toThrow(`${revision} has no cookies`);
    lab.attach('fentry', 'g', code, { cookie: 0 });
    expect(lab.call('g', [5]).ret).toBe(5n);
  });
});

describe.each(V6)('%s: beside others', (revision) => {
  const TWO = 'f: call __fentry__\nlea rax, [rdi + rsi]\nret\nnew_f: lea rax, [rdi + rsi + 1000]\nret';
  const PROTO = 'long f(long a, long b)';

  test('a live patch: the other function runs, and programs see its calls', async () => {
    const lab = await traced(revision, TWO, PROTO);
    const fexit = lab.attach('fexit', 'f', await lab.assemble('quiet', 'xor eax, eax\nret'));
    const patch = lab.livepatch('f', 'new_f');
    expect(lab.call('f', [1, 2], { watch: true })).toMatchObject({ ret: 1003n, seen: [{ ret: 1003n }] });
    fexit.detach();
    expect(lab.call('f', [1, 2]).ret).toBe(1003n);
    patch.remove();
    expect(lab.call('f', [1, 2]).ret).toBe(3n);
  });

  test('programs of cgroups: watched, refusing, detached', async () => {
    const lab = await traced(revision, TWO, PROTO);
    const allow = await lab.assemble('allow', 'mov eax, 1\nret');
    const deny = await lab.assemble('deny', 'xor eax, eax\nret');
    const before = stateOf(lab);
    const attached = [lab.attachCgroup('f', allow), lab.attachCgroup('f', deny)];
    const { ret, seen } = lab.call('f', [1, 2], { watch: true });
    expect(BigInt.asIntN(64, ret ?? 0n)).toBe(-1n);
    expect(seen.map(({ program, args, returned }) => [program, args, returned])).toEqual([
      ['allow', [1n, 2n], 1n],
      ['deny', [1n, 2n], 0n],
    ]);
    attached[1]?.detach();
    expect(lab.call('f', [1, 2]).ret).toBe(3n);
    attached[0]?.detach();
    expect(() => attached[0]?.detach()).toThrow('is detached from f already');
    expect(stateOf(lab)).toEqual(before);
  });

  test('an attach of a cgroup program that fails leaves nothing', async () => {
    const lab = await traced(revision, TWO, PROTO);
    const allow = await lab.assemble('allow', 'mov eax, 1\nret');
    lab.attachCgroup('f', allow).detach();
    const before = stateOf(lab);
    lab.kernel.fail.arm('alloc-image');
    expect(kernelError(() => lab.attachCgroup('f', allow))).toMatchObject({ code: 'ENOMEM' });
    expect(stateOf(lab)).toEqual(before);
  });
});
