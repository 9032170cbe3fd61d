import process from 'node:process';
import { describe, expect, it } from 'vitest';
import {
  type BpfObject,
  type BpfProgram,
  kconfigBytes,
  readBpfObject,
  relocateCore,
} from '../../bpf/index.ts';
import { isLdImm64 } from '../../jit/index.ts';
import { InputError } from '../../lib/index.ts';
import { type Btf, type ElfObject, type ElfSection, parseElf, SectionType } from '../../obj/index.ts';
import { poke, Random, WIDTHS } from '../obj/damage.ts';
import {
  BPF_OBJECTS,
  bpfBytes,
  bpfObject,
  code,
  EXIT,
  functionAt,
  insn,
  targetBtf,
} from './object-support.ts';

/*
 * eBPF objects that are cut, damaged or made to mislead: each is read, and then holds together, or gives
 * one InputError of one line. A case is named by its kind and seed, and a failure says which it was.
 *
 *   TRAMPLAB_HOSTILE_CASES=12500 npx vitest run test/bpf/object-hostile.test.ts     100,000 objects
 */

const CASES_PER_KIND = Number(process.env['TRAMPLAB_HOSTILE_CASES'] ?? 300);

interface Original {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly elf: ElfObject;
}

const ORIGINALS: readonly Original[] = BPF_OBJECTS.map((name) => {
  const bytes = bpfBytes(name);
  return { name, bytes, elf: parseElf(bytes, name, ['bpf']) };
});
const TARGET: Btf = targetBtf();
const LARGEST_BEFORE_KIB = process.resourceUsage().maxRSS;

/** Damages a copy of an object. */
type Damage = (random: Random, bytes: Uint8Array, original: Original) => Uint8Array;

const times = (count: number, work: () => void): void => {
  for (let i = 0; i < count; i++) work();
};

/** Pokes a few fields of these sections, a quarter of them near the start. */
function pokeSections(
  random: Random,
  bytes: Uint8Array,
  sections: readonly ElfSection[],
  step: number,
): void {
  if (sections.length === 0) return;
  times(1 + random.below(6), () => {
    const { fileOffset, sizeBytes } = random.pick(sections);
    const reach = random.below(4) === 0 ? Math.min(48, sizeBytes) : sizeBytes;
    poke(random, bytes, fileOffset + step * random.below(reach / step), random.pick(WIDTHS));
  });
}

const named =
  (...names: readonly string[]) =>
  ({ elf }: Original): ElfSection[] =>
    elf.sections.filter(({ name, sizeBytes }) => names.includes(name) && sizeBytes > 8);

const DAMAGES: Readonly<Record<string, Damage>> = {
  truncated: (random, bytes) => bytes.slice(0, random.below(bytes.length)),

  'bits flipped': (random, bytes) => {
    times(1 + random.below(16), () => {
      const at = random.below(bytes.length);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
    });
    return bytes;
  },

  'headers that lie': (random, bytes, { elf }) => {
    const shoff = Number(new DataView(bytes.buffer).getBigUint64(40, true));
    times(1 + random.below(3), () => {
      const width = random.pick(WIDTHS);
      if (random.below(8) === 0) poke(random, bytes, 16 + width * random.below(48 / width), width);
      else poke(random, bytes, shoff + 64 * random.below(elf.sections.length) + 4 * random.below(16), width);
    });
    return bytes;
  },

  'symbols and relocations that lie': (random, bytes, { elf }) => {
    const tables = elf.sections.filter(({ type }) => type === SectionType.SYMTAB || type === SectionType.REL);
    times(1 + random.below(6), () => {
      const { fileOffset, sizeBytes, type } = random.pick(tables);
      const entry = type === SectionType.REL ? 16 : 24;
      const at = fileOffset + entry * random.below(sizeBytes / entry);
      poke(random, bytes, at + random.pick([0, 4, 6, 8, 12, 16]), random.pick(WIDTHS));
    });
    return bytes;
  },

  'types that lie': (random, bytes, original) => {
    pokeSections(random, bytes, named('.BTF')(original), 4);
    return bytes;
  },

  'line info and CO-RE that lie': (random, bytes, original) => {
    pokeSections(random, bytes, named('.BTF.ext')(original), 4);
    return bytes;
  },

  'code and names that lie': (random, bytes, original) => {
    const { sections } = original.elf;
    const contents = sections.filter(({ flags, sizeBytes }) => (flags & 6) === 6 && sizeBytes >= 8);
    pokeSections(random, bytes, [...contents, ...named('.strtab', '.maps')(original)], 4);
    return bytes;
  },

  'pieces in wrong places': (random, bytes) => {
    times(1 + random.below(4), () => {
      const size = 8 * (1 + random.below(32));
      const from = 8 * random.below(bytes.length / 8);
      bytes.copyWithin(8 * random.below(bytes.length / 8), from, from + size);
    });
    return bytes;
  },
};

/** What a loader relies on: everything that an object refers to is there. */
function checkWhole(object: BpfObject): void {
  const { maps, globals, externs, programs, btf } = object;
  const hold = (holds: boolean, what: string): void => {
    if (!holds) throw new Error(`the object does not hold together: ${what}`);
  };
  for (const { slots } of maps) {
    for (const { kind, index } of slots)
      hold(index < (kind === 'map' ? maps : programs).length, 'a map slot');
  }
  for (const { contents, sizeBytes, variables } of globals) {
    hold(contents.length <= sizeBytes, 'contents');
    for (const { offset, sizeBytes: bytes, type } of variables) {
      hold(offset + bytes <= sizeBytes && btf?.types[type] !== undefined, 'a variable');
    }
  }
  for (const { insns, subprogs, references, lineInfo, coreRelocs, funcInfo } of programs) {
    for (const reference of references) {
      const slot = insns[reference.insn];
      hold(slot !== undefined, 'a reference');
      if (reference.kind === 'map') hold(reference.map < maps.length, 'a map');
      if (reference.kind === 'global')
        hold(reference.offset < (globals[reference.global]?.sizeBytes ?? 0), 'a global');
      if (reference.kind === 'ksym' || reference.kind === 'kfunc-call')
        hold(reference.extern < externs.length, 'an extern');
      if (reference.kind === 'subprog-call' || reference.kind === 'subprog-addr') {
        hold(subprogs[reference.subprog]?.start === reference.insn + 1 + (slot?.imm ?? 0), 'a subprogram');
      }
      if (slot !== undefined && isLdImm64(slot)) hold(reference.insn + 1 < insns.length, 'half an immediate');
    }
    for (const list of [lineInfo, coreRelocs, funcInfo, references]) {
      hold(
        list.every(({ insn: at }, i) => at < insns.length && at >= (list[i - 1]?.insn ?? 0)),
        'an order',
      );
    }
    hold(
      subprogs.every(({ start, length }, i) => (subprogs[i + 1]?.start ?? insns.length) === start + length),
      'a gap',
    );
  }
}

/** Everything that is done with an object, each stage on its own; counts what was refused. */
function digest(bytes: Uint8Array, targets: readonly Btf[]): { accepted: number; refused: number } {
  const counts = { accepted: 0, refused: 0 };
  const stage = <T>(work: () => T): T | undefined => {
    try {
      const result = work();
      counts.accepted++;
      return result;
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      if (/[\p{Cc}\u2028\u2029]/u.test(error.message) || error.message.length > 2000) {
        throw new Error(`not one clear line: ${JSON.stringify(error.message)}`);
      }
      counts.refused++;
      return undefined;
    }
  };
  const object = stage(() => readBpfObject(bytes, { file: 'hostile.bpf.o' }));
  if (object === undefined) return counts;
  checkWhole(object);
  for (const program of object.programs) {
    for (const against of [targets, object.btf === undefined ? [] : [object.btf]]) {
      const result = stage(() => relocateCore(object, program, against));
      if (result !== undefined && result.insns.length !== program.insns.length)
        throw new Error('CO-RE changed the length');
    }
  }
  const options = new Map([['CONFIG_HZ', '250']]);
  for (const section of object.globals) {
    if (section.kind === 'kconfig')
      stage(() => kconfigBytes(object, section, { version: [5, 15, 0], options, hasBpfCookie: false }));
  }
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
      const { accepted, refused } = digest(make(new Random(seed), seed), [TARGET]);
      total.accepted += accepted;
      total.refused += refused;
    } catch (error) {
      throw new Error(`${kind}, seed ${seed}: ${error}`, { cause: error });
    }
  }
  return total;
}

describe(`hostile eBPF objects, ${CASES_PER_KIND} of each kind`, () => {
  it.each(Object.keys(DAMAGES))('%s', { timeout: 600_000 }, (kind) => {
    const damage = DAMAGES[kind] as Damage;
    const { accepted, refused } = run(kind, (random, index) => {
      const original = ORIGINALS[index % ORIGINALS.length] as Original;
      return damage(random, original.bytes.slice(), original);
    });
    expect(refused).toBeGreaterThan(CASES_PER_KIND / 20);
    if (kind !== 'truncated') expect(accepted).toBeGreaterThan(CASES_PER_KIND / 20);
  });

  it('take at most 200 MB more than was there before', () => {
    const grownMiB = (process.resourceUsage().maxRSS - LARGEST_BEFORE_KIB) / 1024;
    if (process.env['TRAMPLAB_HOSTILE_CASES'] !== undefined)
      console.log(`grown by ${Math.round(grownMiB)} MiB`);
    expect(grownMiB).toBeLessThan(200);
  });
});

describe('single blows', () => {
  const read = (bytes: Uint8Array): string => {
    try {
      checkWhole(readBpfObject(bytes, { file: 'x' }));
      return 'accepted';
    } catch (error) {
      if (error instanceof InputError) return error.message;
      throw error;
    }
  };

  it('every length of a file, from nothing to all but a byte', () => {
    const bytes = bpfBytes('fmod-ret.bpf.o');
    const shorter = Array.from({ length: bytes.length }, (_, length) => read(bytes.slice(0, length)));
    expect(shorter).not.toContain('accepted');
  });

  it('every byte of the tables, turned over', () => {
    const bytes = bpfBytes('lsm.bpf.o');
    for (let at = 0; at < bytes.length; at++) {
      const damaged = bytes.slice();
      damaged[at] = ~(damaged[at] ?? 0);
      read(damaged);
    }
  });

  it('a chain of calls as deep as there are functions', () => {
    const count = 20_000;
    const text = code(
      '.text',
      Array.from({ length: count }, () => [insn(0x85, { src: 1 }), EXIT])
        .flat()
        .slice(0, -1)
        .concat(EXIT),
    );
    const functions = Array.from({ length: count }, (_, i) => functionAt(`f${i}`, 0, 2 * i, 2));
    // Each calls what begins one slot behind the next instruction: the next function.
    for (let i = 0; i + 1 < count; i++) text.data?.set([1], 16 * i + 4);
    text.data?.set([0x95, 0x00], 16 * (count - 1));
    const main = code('fentry/f', [insn(0x85, { src: 1, imm: -1 }), EXIT]);
    const object = readBpfObject(
      bpfObject(
        [text, main],
        [functionAt('main', 1, 0, 2), ...functions],
        [{ section: 1, offset: 0, type: 10, symbol: 1 }],
      ),
      { file: 'x' },
    );
    expect((object.programs[0] as BpfProgram).subprogs.length).toBe(count + 1);
    checkWhole(object);
  });
});
