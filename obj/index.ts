export { type AsmTextOptions, type AssembledLine, type AssembledText, assembleText } from './asm-text.ts';
export {
  Btf,
  type BtfEnumerator,
  type BtfMember,
  type BtfParam,
  type BtfSecVar,
  type BtfType,
  objectBtf,
  parseBtf,
} from './btf.ts';
export { bareType, type TypeAt, typeBytes } from './btf-walk.ts';
export {
  type ElfMachine,
  type ElfObject,
  type ElfReloc,
  type ElfSection,
  type ElfSegment,
  type ElfSymbol,
  type ElfType,
  findSection,
  parseElf,
  SectionFlag,
  SectionType,
  type SymbolPlace,
} from './elf.ts';
export {
  type GroupKind,
  type LayoutGroup,
  layoutObject,
  type ObjectLayout,
  type PlacedSection,
} from './layout.ts';
export { linkObject } from './link.ts';
export {
  type FentryCall,
  findSymbol,
  functionAt,
  type LinkedGroup,
  type LinkedObject,
  type LinkedSymbol,
  linkedBytes,
  type SiteRecord,
} from './linked.ts';
export type { ArgModel, FuncModel, RetModel } from './model.ts';
export { parsePrototype } from './prototype.ts';
export { ByteReader } from './reader.ts';
export { type FtraceSite, ftraceSites, SITE_BYTES } from './sites.ts';
export { shown } from './text.ts';
