/* The smallest file that Linux runs: an ELF header, one segment of text, a stack that is not executable. */
import { le } from './machine-code.js';
const HEADER_BYTES = 64;
const SEGMENT_BYTES = 56;
const PT_LOAD = 1;
const PT_GNU_STACK = 0x6474_e551;
const READ_EXEC = 5;
const READ_WRITE = 6;
/**
 * A static executable whose text stands at a page-aligned address and is entered at its first byte.
 * Kernel: load_elf_binary, fs/binfmt_elf.c
 */
export function elfExecutable(text, address) {
    const textOffset = 4096;
    const ident = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, ...Array(9).fill(0)];
    const header = [
        ...ident,
        ...[...le(2, 2), ...le(62, 2), ...le(1, 4)], // ET_EXEC, x86-64, version
        ...[...le(address, 8), ...le(HEADER_BYTES, 8), ...le(0, 8)], // entry, segments, no sections
        ...[...le(0, 4), ...le(HEADER_BYTES, 2)],
        ...[...le(SEGMENT_BYTES, 2), ...le(2, 2), ...le(0, 6)],
    ];
    const segments = [
        ...[...le(PT_LOAD, 4), ...le(READ_EXEC, 4), ...le(textOffset, 8), ...le(address, 8), ...le(address, 8)],
        ...[...le(text.length, 8), ...le(text.length, 8), ...le(4096, 8)],
        ...[...le(PT_GNU_STACK, 4), ...le(READ_WRITE, 4), ...le(0, 40), ...le(16, 8)],
    ];
    const file = new Uint8Array(textOffset + text.length);
    file.set([...header, ...segments]);
    file.set(text, textOffset);
    return file;
}
//# sourceMappingURL=elf.js.map