import koffi from 'koffi';
/**
 * Executable memory in this process, for its life; undefined where native code of ours cannot run:
 * other than x86-64 Linux, or a hardened host that refuses memory which is writable and executable.
 */
export function nativePages(sizeBytes) {
    if (process.arch !== 'x64' || process.platform !== 'linux')
        return undefined;
    const PROT_READ_WRITE_EXEC = 7;
    const MAP_PRIVATE_ANONYMOUS = 0x22;
    const mmap = koffi
        .load('libc.so.6')
        .func('intptr_t mmap(uintptr_t at, size_t length, int prot, int flags, int fd, long offset)');
    const pointer = Number(mmap(0, sizeBytes, PROT_READ_WRITE_EXEC, MAP_PRIVATE_ANONYMOUS, -1, 0));
    return pointer === -1 ? undefined : { pointer, bytes: new Uint8Array(koffi.view(pointer, sizeBytes)) };
}
//# sourceMappingURL=native-code.js.map