import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { InputError, type Kaddr, kaddr } from '../../lib/index.ts';
import {
  type ElfObject,
  type GroupKind,
  type LayoutGroup,
  type LinkedObject,
  layoutObject,
  linkObject,
  parseElf,
} from '../../obj/index.ts';

/** The objects that gcc made of the C sources next to them. */
export const FIXTURES: string = fileURLToPath(new URL('../fixtures/', import.meta.url));

export const OBJECTS = [
  'demo.o',
  'wide.o',
  'control.o',
  'probes.o',
  'demo-untraced.o',
  'demo-no-btf.o',
  'demo-patchable.o',
  'demo-no-table.o',
  'demo-pic.o',
] as const;

export const IMAGE = 'demo.image';

export function fixtureBytes(name: string): Uint8Array {
  return new Uint8Array(readFileSync(FIXTURES + name));
}

export function fixture(name: string): ElfObject {
  return parseElf(fixtureBytes(name), name);
}

/** Where tests put the groups of an object: kernel text and, as the code model asks, not far from it. */
export const BASES: Readonly<Record<GroupKind, Kaddr>> = {
  text: kaddr(0xffff_ffff_8100_0000n),
  rodata: kaddr(0xffff_ffff_8200_0000n),
  data: kaddr(0xffff_ffff_8300_0000n),
  bss: kaddr(0xffff_ffff_8400_0000n),
};

export const placeAtBases = (group: LayoutGroup): Kaddr => BASES[group.kind];

/** An address for each of these names, none for others. */
export function knowing(names: Readonly<Record<string, bigint>>): (name: string) => Kaddr | undefined {
  return (name) => {
    const address = names[name];
    return address === undefined ? undefined : kaddr(address);
  };
}

export function linked(object: ElfObject, names: Readonly<Record<string, bigint>> = {}): LinkedObject {
  return linkObject(layoutObject(object), placeAtBases, knowing(names));
}

/** The InputError that `work` throws; anything else fails the test. */
export function inputError(work: () => unknown): InputError {
  try {
    work();
  } catch (error) {
    if (error instanceof InputError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** Runs a tool of the host; undefined when it is not there. */
export function tool(name: string, args: readonly string[]): string | undefined {
  const { error, status, stdout, stderr } = spawnSync(name, args, { encoding: 'utf8' });
  if (error !== undefined) return undefined;
  if (status !== 0) throw new Error(`${name} ${args.join(' ')}: ${stderr}`);
  return stdout;
}
