import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type BpfObject, readBpfObject } from '../../bpf/index.ts';
import { type BpfInsn, encodeInsns } from '../../jit/index.ts';
import { type Btf, objectBtf, parseElf } from '../../obj/index.ts';
import { buildObject, type RelocSpec, type SectionSpec, type SymbolSpec } from '../obj/elf-builder.ts';

/** The programs that clang made of the C sources next to them, and the shop that they trace. */
export const BPF_FIXTURES: string = fileURLToPath(new URL('../fixtures/bpf/', import.meta.url));

export const BPF_OBJECTS: readonly string[] = readdirSync(BPF_FIXTURES)
  .filter((name) => name.endsWith('.bpf.o'))
  .sort();

export function bpfBytes(name: string): Uint8Array {
  return new Uint8Array(readFileSync(BPF_FIXTURES + name));
}

export function bpfFixture(name: string): BpfObject {
  return readBpfObject(bpfBytes(name), { file: name });
}

/** The types of the shop. */
export function targetBtf(): Btf {
  const btf = objectBtf(parseElf(bpfBytes('targets.o'), 'targets.o'));
  if (btf === undefined) throw new Error('targets.o has no BTF');
  return btf;
}

/** An instruction; fields that are left out are 0. */
export const insn = (code: number, fields: Partial<BpfInsn> = {}): BpfInsn => ({
  ...{ code, dst: 0, src: 0, off: 0, imm: 0 },
  ...fields,
});

export const EXIT: BpfInsn = insn(0x95);
/** `r0 = 0` */
export const ZERO: BpfInsn = insn(0xb7);
/** A call of a subprogram: `imm` slots behind the next one. */
export const call = (imm: number): BpfInsn => insn(0x85, { src: 1, imm });
export const helper = (imm: number): BpfInsn => insn(0x85, { imm });
export const load64 = (imm = 0, high = 0): BpfInsn[] => [insn(0x18, { dst: 1, imm }), insn(0, { imm: high })];

export const TEXT_FLAGS = 6;
export const DATA_FLAGS = 3;
export const FUNC = 2;

export const code = (name: string, insns: readonly BpfInsn[]): SectionSpec => ({
  name,
  flags: TEXT_FLAGS,
  data: encodeInsns(insns),
});

/** A function of whole slots in a section. */
export const functionAt = (
  name: string,
  section: number,
  slot: number,
  length: number,
  more: Partial<SymbolSpec> = {},
): SymbolSpec => ({
  ...{ name, section, value: BigInt(8 * slot), size: 8 * length, type: FUNC },
  ...more,
});

/** An eBPF object by hand. */
export function bpfObject(
  sections: readonly SectionSpec[],
  symbols: readonly SymbolSpec[] = [],
  relocs: readonly RelocSpec[] = [],
): Uint8Array {
  return buildObject(sections, symbols, relocs, 'bpf');
}

export function readBuilt(
  sections: readonly SectionSpec[],
  symbols: readonly SymbolSpec[] = [],
  relocs: readonly RelocSpec[] = [],
): BpfObject {
  return readBpfObject(bpfObject(sections, symbols, relocs), { file: 'x.bpf.o' });
}
