import { describe, expect, it } from 'vitest';
import { InputError, kaddr } from '../../lib/index.ts';
import {
  type Btf,
  ftraceSites,
  type LinkedObject,
  layoutObject,
  linkObject,
  objectBtf,
  parseBtf,
  parseElf,
} from '../../obj/index.ts';
import { type BtfSpec, buildBtf, KIND } from './btf-builder.ts';
import { poke, Random, WIDTHS } from './damage.ts';
import { buildObject } from './elf-builder.ts';
import { fixtureBytes, IMAGE, OBJECTS, placeAtBases } from './support.ts';

/*
 * Files that are cut, damaged or made to mislead: each gives a valid result or one InputError of one
 * line, whatever the bytes. A case is named by its kind and seed, and a failure says which it was.
 */

const CASES_PER_KIND = 1500;

const ORIGINALS = [...OBJECTS, IMAGE].map((name) => ({
  name,
  bytes: fixtureBytes(name),
  parsed: parseElf(fixtureBytes(name), name),
}));

/** Damages one thing in a copy of a compiled file. */
type Damage = (random: Random, bytes: Uint8Array, original: (typeof ORIGINALS)[number]) => Uint8Array;

const DAMAGES: Readonly<Record<string, Damage>> = {
  truncated: (random, bytes) => bytes.slice(0, random.below(bytes.length)),

  'bits flipped': (random, bytes) => {
    for (let flips = 1 + random.below(16); flips > 0; flips--) {
      const at = random.below(bytes.length);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
    }
    return bytes;
  },

  'headers that lie': (random, bytes, { parsed }) => {
    const shoff = Number(new DataView(bytes.buffer).getBigUint64(40, true));
    for (let fields = 1 + random.below(3); fields > 0; fields--) {
      const width = random.pick(WIDTHS);
      const place = random.below(8);
      const row = random.below(parsed.sections.length);
      if (place === 0) poke(random, bytes, 16 + width * random.below(48 / width), width);
      else if (place === 1) poke(random, bytes, 64 + 8 * random.below(35), width);
      else poke(random, bytes, shoff + 64 * row + 4 * random.below(16), width);
    }
    return bytes;
  },

  'symbols and relocations that lie': (random, bytes, { parsed }) => {
    const tables = parsed.sections.filter((section) => section.type === 2 || section.type === 4);
    for (let fields = 1 + random.below(6); fields > 0; fields--) {
      const { fileOffset, sizeBytes } = random.pick(tables);
      const at = fileOffset + 24 * random.below(sizeBytes / 24);
      poke(random, bytes, at + random.pick([0, 4, 6, 8, 12, 16]), random.pick(WIDTHS));
    }
    return bytes;
  },

  'contents that lie': (random, bytes, { parsed }) => {
    // Types, lists of sites, names: what the later readers read.
    const wanted = ['.BTF', '__mcount_loc', '__patchable_function_entries', '.strtab', '.shstrtab', '.text'];
    const sections = parsed.sections.filter(
      (section) => wanted.includes(section.name) && section.sizeBytes > 8,
    );
    for (let fields = 1 + random.below(8); fields > 0; fields--) {
      const { fileOffset, sizeBytes } = random.pick(sections);
      const head = random.below(4) === 0 ? 24 : sizeBytes;
      poke(
        random,
        bytes,
        fileOffset + 4 * random.below(Math.min(head, sizeBytes) / 4),
        random.pick([2, 4, 4, 8]),
      );
    }
    return bytes;
  },

  'pieces in wrong places': (random, bytes) => {
    for (let moves = 1 + random.below(4); moves > 0; moves--) {
      const size = 8 * (1 + random.below(32));
      const from = 8 * random.below(bytes.length / 8);
      bytes.copyWithin(8 * random.below(bytes.length / 8), from, from + size);
    }
    return bytes;
  },

  'sections on top of each other': (random, bytes, { parsed }) => {
    const shoff = Number(new DataView(bytes.buffer).getBigUint64(40, true));
    const view = new DataView(bytes.buffer);
    const [one, other] = [random.pick(parsed.sections), random.pick(parsed.sections)];
    view.setBigUint64(shoff + 64 * one.index + 24, BigInt(other.fileOffset + random.below(16)), true);
    if (random.below(2) === 0) view.setBigUint64(shoff + 64 * one.index + 32, BigInt(other.sizeBytes), true);
    if (random.below(4) === 0) view.setUint32(shoff + 64 * one.index + 4, random.below(12), true);
    return bytes;
  },
};

/** BTF of random types that refer to each other at random: loops, declarations as types, void in odd places. */
function randomBtf(random: Random): Uint8Array {
  const count = 1 + random.below(24);
  const id = (): number => random.below(random.below(8) === 0 ? count + 3 : count + 1);
  const name = (): string => random.pick(['', 'f', 'g', 'int', 'unsigned char', 'x\ny', 'long']);
  const kinds = Object.values(KIND);
  const spec = (): BtfSpec => {
    const kind = random.pick([
      ...kinds,
      KIND.PTR,
      KIND.FUNC_PROTO,
      KIND.FUNC,
      KIND.TYPEDEF,
      KIND.STRUCT,
      KIND.CONST,
    ]);
    const items = Array.from({ length: random.below(4) }, () => 0);
    switch (kind) {
      case KIND.INT:
        return {
          kind,
          name: name(),
          value: random.pick([1, 2, 4, 8, 16, 3, 0]),
          tail: [random.below(3) << 24],
        };
      case KIND.ARRAY:
        return { kind, tail: [id(), id(), random.below(9)] };
      case KIND.STRUCT:
      case KIND.UNION:
        return { kind, name: name(), value: 8, items: items.map(() => [name(), id(), 0]) };
      case KIND.ENUM:
        return { kind, name: name(), value: 4, items: items.map(() => [name(), random.below(9) - 4]) };
      case KIND.ENUM64:
        return { kind, name: name(), value: 8, items: items.map(() => [name(), 1, 2]) };
      case KIND.FUNC_PROTO:
        return { kind, value: id(), items: items.map(() => [name(), id()]) };
      case KIND.VAR:
      case KIND.DECL_TAG:
        return { kind, name: name(), value: id(), tail: [1] };
      case KIND.DATASEC:
        return { kind, name: name(), items: items.map(() => [id(), 0, 8]) };
      default:
        return { kind, name: name(), value: id(), count: random.below(2) };
    }
  };
  const bytes = buildBtf(Array.from({ length: count }, spec));
  if (random.below(4) === 0) poke(random, bytes, 4 * random.below(bytes.length / 4), 4);
  return bytes;
}

/** Everything the house does with a file, each stage on its own; counts what was refused. */
function digest(bytes: Uint8Array): { accepted: number; refused: number } {
  const counts = { accepted: 0, refused: 0 };
  const stage = <T>(work: () => T): T | undefined => {
    try {
      const result = work();
      counts.accepted++;
      return result;
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      if (/[\p{Cc}\u2028\u2029]/u.test(error.message) || error.message.length > 20_000) {
        throw new Error(`not one clear line: ${JSON.stringify(error.message)}`);
      }
      counts.refused++;
      return undefined;
    }
  };
  const models = (btf: Btf): void => {
    for (const name of btf.functionNames()) stage(() => btf.funcModel(name));
  };

  const object = stage(() => parseElf(bytes, 'hostile.o'));
  if (object === undefined) return counts;
  const btf = stage(() => objectBtf(object));
  if (btf !== undefined) models(btf);
  const layout = stage(() => layoutObject(object));
  if (layout === undefined) return counts;
  const resolve = (name: string) => (name.length % 2 === 0 ? kaddr(0xffff_ffff_8180_0000n) : undefined);
  let target: LinkedObject | undefined;
  for (const known of [resolve, () => kaddr(0xffff_ffff_8180_0000n)]) {
    target = stage(() => linkObject(layout, placeAtBases, known)) ?? target;
  }
  if (target === undefined) return counts;
  const memory = target.groups.reduce((sum, group) => sum + group.bytes.length, 0);
  if (memory > 4 * 64 * 1024 * 1024) throw new Error(`${memory} bytes of memory`);
  const linkedTarget = target;
  stage(() => ftraceSites(linkedTarget));
  return counts;
}

/** Runs the cases of one kind; gives how many stages took and how many refused their input. */
function run(
  kind: string,
  make: (random: Random, index: number) => Uint8Array,
): { accepted: number; refused: number } {
  const total = { accepted: 0, refused: 0 };
  for (let seed = 0; seed < CASES_PER_KIND; seed++) {
    try {
      const { accepted, refused } = digest(make(new Random(seed), seed));
      total.accepted += accepted;
      total.refused += refused;
    } catch (error) {
      throw new Error(`${kind}, seed ${seed}: ${error}`, { cause: error });
    }
  }
  return total;
}

describe(`hostile files, ${CASES_PER_KIND} of each kind`, () => {
  it.each(Object.keys(DAMAGES))('%s', (kind) => {
    const damage = DAMAGES[kind] as Damage;
    const { accepted, refused } = run(kind, (random, index) => {
      const original = ORIGINALS[index % ORIGINALS.length] as (typeof ORIGINALS)[number];
      return damage(random, original.bytes.slice(), original);
    });
    expect(refused).toBeGreaterThan(CASES_PER_KIND / 20);
    if (kind !== 'truncated') expect(accepted).toBeGreaterThan(CASES_PER_KIND / 20);
  });

  it('types that refer to each other at random', () => {
    const { accepted, refused } = run('random types', (random) =>
      buildObject([{ name: '.BTF', data: randomBtf(random) }]),
    );
    expect(Math.min(accepted, refused)).toBeGreaterThan(CASES_PER_KIND / 20);
  });
});

describe('single blows', () => {
  const refusal = (work: () => unknown): string => {
    try {
      work();
    } catch (error) {
      if (error instanceof InputError) return error.message;
      throw error;
    }
    return 'accepted';
  };

  it('every length of a file, from nothing to all but a byte', () => {
    const bytes = fixtureBytes('demo.o');
    const shortest = Array.from({ length: bytes.length }, (_, length) =>
      refusal(() => parseElf(bytes.slice(0, length), 'x')),
    );
    expect(shortest).not.toContain('accepted');
  });

  it('half a million types in one chain', () => {
    const count = 500_000;
    const chain = (last: number): BtfSpec[] =>
      Array.from({ length: count }, (_, i) => ({ kind: KIND.CONST, value: i + 1 === count ? last : i + 2 }));
    expect(refusal(() => parseBtf(buildBtf(chain(0)), 'x'))).toBe('accepted');
    expect(refusal(() => parseBtf(buildBtf(chain(1)), 'x'))).toMatch(/contains itself/);
  });

  it('one long name, its tails shared by ten thousand symbols', () => {
    const names = 'n'.repeat(1000);
    const symbols = Array.from({ length: 10_000 }, (_, i) => ({
      name: i === 0 ? names : '',
      section: 'abs' as const,
    }));
    const bytes = buildObject([{ name: '.text', flags: 6 }], symbols);
    const view = new DataView(bytes.buffer);
    const symtab = parseElf(bytes, 'x').sections.find((section) => section.type === 2);
    for (let i = 1; i < symbols.length; i++) {
      view.setUint32((symtab?.fileOffset ?? 0) + 24 * (i + 1), 1 + (i % 1000), true);
    }
    expect(refusal(() => parseElf(bytes, 'x'))).toBe('accepted');
  });

  it('types whose names are the tails of each other', () => {
    const named = (count: number): Uint8Array => {
      // One type for each byte of the string section, which ends a name at every thousandth.
      const file = new Uint8Array(24 + 13 * count).fill(0x6e, 24 + 12 * count);
      const words = new Uint32Array(file.buffer, 0, 6 + 3 * count);
      words.set([0x0001_eb9f, 24, 0, 12 * count, 12 * count, count]);
      for (let i = 0; i < count; i++) words.set([i, KIND.FWD << 24, 0], 6 + 3 * i);
      for (let i = 0; i < count; i += 1000) file[24 + 12 * count + i] = 0;
      file[file.length - 1] = 0;
      return file;
    };
    expect(refusal(() => parseBtf(named(100_000), 'x'))).toBe('accepted');
    expect(refusal(() => parseBtf(named(150_000), 'x'))).toMatch(
      /more than 64 MiB of names: they share their tails/,
    );
  });
});
