import { afterEach } from 'vitest';
import { parseCall } from '../../cli/call-text.ts';
import { type BpfPrograms, type CallReport, createLab, type Lab, type LabOptions } from '../../lab/index.ts';
import { kaddr } from '../../lib/index.ts';
import type { BpfExpectation, ExpectedCall } from '../fixtures/bpf/expect.ts';
import { BPF_FIXTURES } from './object-support.ts';

const open = new Set<Lab>();

afterEach(() => {
  for (const lab of open) lab.close();
  open.clear();
});

/** A lab with the shop loaded, closed after the test. */
export async function shop(options: LabOptions = {}): Promise<Lab> {
  const lab = await createLab(options);
  open.add(lab);
  lab.load(`${BPF_FIXTURES}targets.o`);
  return lab;
}

/** Where user memory is mapped, in either layout. */
export const USER: ReturnType<typeof kaddr> = kaddr(0x1000_0000n);

/** Makes a call of an expectation, whose structs by value are given as their words. */
export function call(lab: Lab, { call: text, cpu = 0 }: ExpectedCall, watch = false): CallReport {
  const { fn, args } = parseCall(text.replace('USER', `0x${USER.toString(16)}`));
  const left = [...args];
  const values = lab.model(fn).args.map(({ sizeBytes }) => {
    const words = left.splice(0, Math.max(1, Math.ceil(sizeBytes / 8)));
    if (words.length === 1) return words[0] ?? 0n;
    return words.reduceRight<bigint>(
      (value, word) => (value << 64n) | BigInt.asUintN(64, BigInt(word as bigint)),
      0n,
    );
  });
  return lab.call(fn, values, { cpu, watch });
}

/** Loads and attaches what an expectation names. */
export function prepare(lab: Lab, expectation: BpfExpectation, jited = true): BpfPrograms[] {
  const { kconfig, cookies } = expectation;
  return expectation.objects.map((file) => {
    const programs = lab.loadBpf(BPF_FIXTURES + file, {
      jited,
      ...(kconfig === undefined ? {} : { kconfig: new Map(Object.entries(kconfig)) }),
    });
    programs.attachAll(cookies);
    return programs;
  });
}
