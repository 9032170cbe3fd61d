import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { EngineName } from '../../emu/index.ts';
import { type BpfPrograms, createLab, type Lab } from '../../lab/index.ts';
import { toHex } from '../../lib/index.ts';
import { MANAGED_REVISIONS, type ManagedRevision } from '../../tramp/index.ts';
import { nativeMissing } from '../emu/machines.ts';
import { type BpfExpectation, EXPECTATIONS, expectedBytes } from '../fixtures/bpf/expect.ts';
import { call, prepare, USER } from './load-support.ts';
import { BPF_FIXTURES } from './object-support.ts';

/** What kernels refuse to interpret, by object. */
const NOT_INTERPRETED: ReadonlyMap<string, string> = new Map([
  ['for-each.bpf.o', 'callbacks are not allowed in non-JITed programs'],
  ['freplace.bpf.o', 'Can only attach to JITed progs'],
  ['loop.bpf.o', 'callbacks are not allowed in non-JITed programs'],
]);

function has(expectation: BpfExpectation, revision: ManagedRevision): boolean {
  return MANAGED_REVISIONS.indexOf(revision) >= MANAGED_REVISIONS.indexOf(expectation.since);
}

/** Makes the calls and compares all that is expected. */
function run(lab: Lab, expectation: BpfExpectation, objects: readonly BpfPrograms[]): void {
  const logged = lab.log.length;
  for (const one of expectation.calls) {
    const { fault, ret } = call(lab, one);
    expect(fault).toBeNull();
    const low = (value: bigint | number | null): bigint => BigInt.asUintN(32, BigInt(value ?? 0));
    if (one.ret !== undefined) expect([one.call, low(ret)]).toEqual([one.call, low(one.ret)]);
  }
  const variables = objects.flatMap((object) => object.globals({ readOnly: true }));
  const found = Object.fromEntries(
    variables
      .filter(({ name }) => name in expectation.globals)
      .map(({ name, bytes }) => [name, toHex(bytes)]),
  );
  const wanted = Object.fromEntries(
    Object.entries(expectation.globals).map(([name, value]) => {
      const sizeBytes = variables.find((variable) => variable.name === name)?.bytes.length ?? 0;
      return [name, toHex(expectedBytes(value, sizeBytes))];
    }),
  );
  expect(found).toEqual(wanted);
  if (expectation.log !== undefined) expect(lab.log.slice(logged)).toEqual(expectation.log);
  for (const [name, records] of Object.entries(expectation.records ?? {})) {
    const map = objects.find(({ maps }) => maps.has(name))?.map(name);
    expect(map?.consume().map(({ bytes }) => toHex(bytes))).toEqual(records);
  }
}

/** In a lab that others use before and after: with a shop of its own, and nothing left over. */
function tryOut(lab: Lab, expectation: BpfExpectation, jited: boolean): void {
  const target = lab.load(`${BPF_FIXTURES}targets.o`, { as: 'module' });
  const user = lab.machine.memory.map(USER, 4096, 'rw', 'user memory');
  lab.machine.memory.write(USER, new TextEncoder().encode(expectation.user ?? ''));
  const symbols = lab.kernel.kallsyms.lines();
  try {
    const refusal = jited
      ? undefined
      : expectation.objects.map((name) => NOT_INTERPRETED.get(name)).find(Boolean);
    if (refusal === undefined) run(lab, expectation, prepare(lab, expectation, jited));
    else expect(() => prepare(lab, expectation, jited)).toThrow(refusal);
  } finally {
    for (const object of [...lab.bpf].reverse()) object.close();
    lab.machine.memory.unmap(user);
  }
  lab.kernel.settle();
  expect([...lab.kernel.progs].map(({ name }) => name)).toEqual([]);
  expect(lab.kernel.kallsyms.lines()).toEqual(symbols);
  lab.unload(target);
}

const engines: readonly EngineName[] = nativeMissing === undefined ? ['unicorn', 'native'] : ['unicorn'];
const modes = [
  ['compiled', true],
  ['interpreted', false],
] as const;

describe.each(MANAGED_REVISIONS)('%s', (revision) => {
  describe.each(engines)('%s', (engine) => {
    describe.each(modes)('%s', (_mode, jited) => {
      let lab: Lab;
      beforeAll(async () => {
        lab = await createLab({ revision, engine, cpus: 2 });
        // What all programs of a lab stand on comes with the first.
        lab.loadBpf(`${BPF_FIXTURES}plain.bpf.o`).close();
      });
      afterAll(() => lab.close());

      const here = EXPECTATIONS.filter((one) => has(one, revision));
      test.each(here.map((one) => [one.shows, one] as const))('%s', (_shows, expectation) => {
        tryOut(lab, expectation, jited);
      });
    });
  });
});
