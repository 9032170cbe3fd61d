import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { EXPECTATIONS, expectedBytes } from '../fixtures/bpf/expect.ts';
import { BPF_FIXTURES, BPF_OBJECTS, bpfFixture, targetBtf } from './object-support.ts';

const SCRIPT = fileURLToPath(new URL('../../scripts/bpf-fixtures.mjs', import.meta.url));

it('the committed objects are what clang and gcc make of the sources', (context) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [SCRIPT, '--check'], { encoding: 'utf8' });
  if (stdout.startsWith('skipped:')) return context.skip(stdout.trim());
  expect(stdout + stderr).toBe(`the same: ${BPF_OBJECTS.length + 1} eBPF fixtures\n`);
  expect(status).toBe(0);
});

it.each([...BPF_OBJECTS, 'targets.o'])('%s holds no absolute path', (name) => {
  const text = readFileSync(BPF_FIXTURES + name, 'latin1');
  expect(text.match(/\/\w[\w.-]*\/[\w./-]+/g)).toBeNull();
});

describe('what is expected', () => {
  const target = targetBtf();

  it.each(EXPECTATIONS.map((expectation) => [expectation.shows, expectation] as const))(
    '%s',
    (_, expectation) => {
      const objects = expectation.objects.map(bpfFixture);
      const programs = objects.flatMap((object) => object.programs);
      const variables = objects.flatMap(({ globals }) => globals.flatMap((section) => section.variables));
      for (const [name, value] of Object.entries(expectation.globals)) {
        const found = variables.filter((variable) => variable.name === name);
        expect(found.map((variable) => variable.name)).toEqual([name]);
        const sizeBytes = found[0]?.sizeBytes ?? 0;
        const bytes = expectedBytes(value, sizeBytes);
        expect(bytes.length).toBe(sizeBytes);
        // A number must fit its variable, whether it is meant with a sign or without.
        if (typeof value === 'number' || typeof value === 'bigint') {
          const back = BigInt(`0x${Buffer.from(bytes.toReversed()).toString('hex')}`);
          expect([back, BigInt.asIntN(8 * sizeBytes, back)]).toContain(BigInt(value));
        }
      }
      // Every function that is called or traced is one of the shop, and has a type.
      for (const { call } of expectation.calls)
        expect(target.funcId(/^\w+/.exec(call)?.[0] ?? '')).toBeDefined();
      for (const { kind, attachTo = '' } of programs) {
        if (kind !== 'plain' && kind !== 'freplace') expect(target.funcId(attachTo)).toBeDefined();
      }
      const names = programs.map(({ name }) => name);
      for (const name of Object.keys(expectation.cookies ?? {})) expect(names).toContain(name);
      const maps = objects.flatMap((object) => object.maps.map(({ name }) => name));
      for (const name of Object.keys(expectation.records ?? {})) expect(maps).toContain(name);
    },
  );

  it('of every object but the one whose maps the lab does not have', () => {
    const covered = new Set(EXPECTATIONS.flatMap(({ objects }) => objects));
    expect(BPF_OBJECTS.filter((name) => !covered.has(name))).toEqual(['inner-maps.bpf.o']);
    expect(covered.size).toBe(BPF_OBJECTS.length - 1);
  });

  it('covers every kind of program, map and helper that is promised', () => {
    const objects = BPF_OBJECTS.map(bpfFixture);
    const programs = objects.flatMap((object) => object.programs);
    const kinds = new Set(programs.map(({ kind, sleepable }) => (sleepable ? `${kind}.s` : kind)));
    expect([...kinds].sort()).toEqual([
      'fentry',
      'fentry.s',
      'fexit',
      'fexit.s',
      'fmod_ret',
      'fmod_ret.s',
      'freplace',
      'lsm',
      'lsm.s',
      'plain',
    ]);
    const maps = new Set(objects.flatMap((object) => object.maps.map(({ type }) => type)));
    expect([...maps].sort()).toEqual([
      ...['ARRAY', 'ARRAY_OF_MAPS', 'HASH', 'LRU_HASH', 'PERCPU_ARRAY', 'PERCPU_HASH', 'PERF_EVENT_ARRAY'],
      ...['PROG_ARRAY', 'QUEUE', 'RINGBUF', 'STACK'],
    ]);
    const helpers = new Set(
      programs.flatMap(({ insns }) =>
        insns.flatMap(({ code, src, imm }) => (code === 0x85 && src === 0 ? [imm] : [])),
      ),
    );
    // The numbers in lab.h, each of which some program calls.
    const header = readFileSync(`${BPF_FIXTURES}lab.h`, 'utf8');
    const declared = [...header.matchAll(/^HELPER\((\d+),/gm)].map(([, number]) => Number(number));
    expect([...helpers].sort((a, b) => a - b)).toEqual(declared);
  });
});
