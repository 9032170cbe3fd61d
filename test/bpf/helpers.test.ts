import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import {
  BpfRuntime,
  HELPER_ROWS,
  HELPERS,
  type HelperCall,
  helperName,
  helpersOf,
  MAP_TYPES,
} from '../../bpf/index.ts';
import { createMachine, type Machine } from '../../emu/index.ts';
import { Errno, type Kaddr, kaddr } from '../../lib/index.ts';
import { Kernel, MANAGED_REVISIONS } from '../../tramp/index.ts';

const machines: Machine[] = [];
afterEach(() => {
  for (const machine of machines.splice(0)) machine.close();
});

/** Helpers called by name, with memory to give them. */
async function bench(): Promise<{
  readonly runtime: BpfRuntime;
  readonly memory: Machine['memory'];
  readonly text: (value: string) => Kaddr;
  readonly room: (sizeBytes: number) => Kaddr;
  readonly run: (name: string, ...args: (bigint | number)[]) => number;
}> {
  const machine = await createMachine({ cpus: 2 });
  machines.push(machine);
  const runtime = new BpfRuntime(new Kernel(machine, { revision: 'v6.12' }));
  const { memory } = machine;
  const room = (sizeBytes: number): Kaddr => memory.kmalloc(sizeBytes, 'room');
  const text = (value: string): Kaddr => {
    const bytes = new TextEncoder().encode(`${value}\0`);
    const at = room(bytes.length);
    memory.write(at, bytes);
    return at;
  };
  const run = (name: string, ...args: (bigint | number)[]): number => {
    const helper = HELPER_ROWS.find((row) => row.name === name);
    const words = Array.from({ length: 5 }, (_, i) => BigInt.asUintN(64, BigInt(args[i] ?? 0)));
    const frame = { rbp: 0n, returnTo: 0n };
    const result = helper?.run({
      world: runtime,
      cpu: 1,
      args: words as unknown as HelperCall['args'],
      frame,
    });
    if (typeof result !== 'bigint' && typeof result !== 'number') throw new Error(`${name} calls back`);
    return Number(BigInt.asIntN(64, BigInt(result)));
  };
  return { runtime, memory, text, room, run };
}

describe('the table', () => {
  test.each(HELPER_ROWS.map((row) => [row.name, row] as const))(
    '%s has its number, and what it takes',
    (name, row) => {
      expect(helperName(row.id)).toBe(name);
      expect(HELPERS[row.id]).toBeDefined();
      expect(row.doc.length).toBeGreaterThan(0);
    },
  );

  test('no number twice; no revision has what it does not', () => {
    expect(new Set(HELPER_ROWS.map(({ id }) => id)).size).toBe(HELPER_ROWS.length);
    const ids = MANAGED_REVISIONS.map((revision) => helpersOf(revision).map(({ id }) => id));
    ids.slice(1).forEach((later, i) => {
      expect(later).toEqual(expect.arrayContaining(ids[i] ?? []));
    });
    for (const [name, since] of [
      ['bpf_get_func_ip', 1],
      ['bpf_loop', 2],
    ] as const) {
      const there = MANAGED_REVISIONS.map((revision) => helpersOf(revision).some((row) => row.name === name));
      expect([name, there]).toEqual([name, MANAGED_REVISIONS.map((_, i) => i >= since)]);
    }
  });

  test('docs/bpf-programs.md tells of all helpers and types of maps, as the tables do', () => {
    const page = readFileSync('docs/bpf-programs.md', 'utf8');
    for (const { id, name, since, doc } of HELPER_ROWS)
      expect(page).toContain(`| ${id} | \`${name}\` | ${since} | ${doc} |`);
    for (const { id, name, doc } of MAP_TYPES) expect(page).toContain(`| ${id} | \`${name}\` | ${doc} |`);
    const rows = page.match(/^\| \d+ \| `/gm) ?? [];
    expect(rows).toHaveLength(HELPER_ROWS.length + MAP_TYPES.length);
  });
});

describe('formats', () => {
  test.each([
    ['%d %i %u', [-1, -2, -1], '-1 -2 4294967295'],
    ['%ld %llu %lx', [-1, -1, -1], '-1 18446744073709551615 ffffffffffffffff'],
    ['%x %X', [0xab, 0xab], 'ab AB'],
    ['[%5d|%-5d|%05d|%+d|% d]', [42, 42, -42, 42, 42], '[   42|42   |-0042|+42| 42]'],
    ['%c%c %%', [0x68, 0x69], 'hi %'],
    ['%p', [0x1234], '0000000000001234'],
    ['%ps %pS', ['sched_clock', 'sched_clock'], /^sched_clock sched_clock\+0x0\/0x[0-9a-f]+$/],
  ] as const)('%s', async (format, values, wanted) => {
    const { runtime, memory, text, room, run } = await bench();
    const data = room(8 * values.length);
    values.forEach((value, i) => {
      const word =
        typeof value === 'string' ? (runtime.kernel.kallsyms.named(value)?.start ?? 0n) : BigInt(value);
      memory.writeU64(kaddr(data + BigInt(8 * i)), word);
    });
    const size = format.length + 1;
    const written = run('bpf_trace_vprintk', text(format), size, data, 8 * values.length);
    const [line = ''] = runtime.log;
    expect(line).toMatch(
      typeof wanted === 'string' ? new RegExp(`^${wanted.replace(/[[\]|+\\^$.*?(){}]/g, '\\$&')}$`) : wanted,
    );
    expect(written).toBe(line.length);
  });

  test.each(['%', '%z', '%d %d %d %d', '%lld%', '\x01', '%pQ', '%5'])('refuses %j', async (format) => {
    const { text, run, runtime } = await bench();
    expect(run('bpf_trace_printk', text(format), format.length + 1, 1, 2, 3)).toBe(-Errno.EINVAL);
    expect(runtime.log).toEqual([]);
  });

  test('a format must end within its size', async () => {
    const { text, run } = await bench();
    expect(run('bpf_trace_printk', text('abc'), 3)).toBe(-Errno.EINVAL);
  });

  test('snprintf cuts, and says how much there was', async () => {
    const { memory, text, room, run } = await bench();
    const to = room(8);
    memory.writeU64(to, -1n);
    expect(run('bpf_snprintf', to, 4, text('abcdef'), 0, 0)).toBe(7);
    expect(Buffer.from(memory.bytes(to, 8)).toString('latin1')).toBe('abc\0\xff\xff\xff\xff');
    expect(run('bpf_snprintf', to, 4, text('%d'), to, 7)).toBe(-Errno.EINVAL);
  });
});

test.each([
  ['bpf_strtol', '-12z', 0, 3, -12n],
  ['bpf_strtol', ' 0x1F', 0, 5, 31n],
  ['bpf_strtol', '017', 0, 3, 15n],
  ['bpf_strtol', '9223372036854775808', 10, -Errno.ERANGE, 0n],
  ['bpf_strtoul', '18446744073709551615', 10, 20, -1n],
  ['bpf_strtoul', '-1', 10, -Errno.EINVAL, 0n],
  ['bpf_strtol', 'x', 0, -Errno.EINVAL, 0n],
  ['bpf_strtol', '1', 7, -Errno.EINVAL, 0n],
] as const)('%s of %j, base %d: %d', async (name, value, base, result, stored) => {
  const { memory, text, room, run } = await bench();
  const to = room(8);
  expect(run(name, text(value), value.length, base, to)).toBe(result);
  expect(memory.readU64(to)).toBe(BigInt.asUintN(64, stored));
});

test('strncmp, up to a length or the end', async () => {
  const { text, run } = await bench();
  const compare = (one: string, size: number, other: string): number =>
    run('bpf_strncmp', text(one), size, text(other));
  expect([
    compare('abc', 3, 'abd'),
    compare('abd', 3, 'abc'),
    compare('abc', 2, 'abd'),
    compare('a', 9, 'a'),
  ]).toEqual([-1, 1, 0, 0]);
});

describe('memory', () => {
  test('user and kernel addresses are told apart; what fails leaves zeros', async () => {
    const { memory, text, room, run } = await bench();
    const user = kaddr(0x1000_0000n);
    memory.map(user, 4096, 'rw', 'user memory');
    memory.write(user, new TextEncoder().encode('user'));
    const to = room(8);
    const read = (name: string, from: Kaddr): [number, string] => {
      memory.writeU64(to, -1n);
      const result = run(name, to, 5, from);
      return [result, Buffer.from(memory.bytes(to, 5)).toString('latin1')];
    };
    const kernel = text('kern');
    const zeros = '\0\0\0\0\0';
    const failed = [-Errno.EFAULT, zeros];
    expect(read('bpf_probe_read_user', user)).toEqual([0, 'user\0']);
    expect(read('bpf_probe_read_kernel', kernel)).toEqual([0, 'kern\0']);
    expect(read('bpf_probe_read', user)).toEqual([0, 'user\0']);
    expect(read('bpf_probe_read', kernel)).toEqual([0, 'kern\0']);
    expect(read('bpf_probe_read_user', kernel)).toEqual(failed);
    expect(read('bpf_probe_read_kernel', user)).toEqual(failed);
    expect(read('bpf_copy_from_user', kernel)).toEqual(failed);
    expect(read('bpf_probe_read_user_str', user)).toEqual([5, 'user\0']);
    expect(read('bpf_probe_read_user', kaddr(user + 4094n))).toEqual(failed);
    expect(read('bpf_probe_read_kernel_str', kaddr(0xffff_ffff_ffff_fff0n))).toEqual(failed);
  });

  test('the end of a mapping is met in the middle of a text', async () => {
    const { memory, room, run } = await bench();
    const page = memory.vmalloc(4096);
    memory.write(kaddr(page + 4094n), Uint8Array.of(65, 66));
    expect(run('bpf_probe_read_kernel_str', room(8), 8, page + 4094n)).toBe(-Errno.EFAULT);
    expect(run('bpf_probe_read_kernel_str', room(8), 2, page + 4094n)).toBe(2);
  });
});

test('task, CPU, chance: the same in every run', async () => {
  const [one, other] = [await bench(), await bench()];
  const numbers = ({ run }: typeof one): number[] =>
    Array.from({ length: 4 }, () => run('bpf_get_prandom_u32'));
  expect(numbers(one)).toEqual(numbers(other));
  expect([one.run('bpf_get_smp_processor_id'), one.run('bpf_get_numa_node_id')]).toEqual([1, 0]);
  expect(one.run('bpf_get_current_pid_tgid')).toBe(1000 * 2 ** 32 + 1001);
  expect(one.run('bpf_ktime_get_ns')).toBe(one.run('bpf_ktime_get_ns') - 10);
  expect(one.run('bpf_get_current_comm', one.room(4), 0)).toBe(-Errno.EINVAL);
});
