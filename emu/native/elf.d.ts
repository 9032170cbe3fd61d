/**
 * A static executable whose text stands at a page-aligned address and is entered at its first byte.
 * Kernel: load_elf_binary, fs/binfmt_elf.c
 */
export declare function elfExecutable(text: Uint8Array, address: bigint): Uint8Array;
