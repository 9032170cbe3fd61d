/*
 * The few Linux calls that the host makes, through koffi and libc: files that are memory, mappings,
 * a process, waiting and waking. Pointers are numbers: user-space addresses are exact.
 */
import koffi from 'koffi';
import { InputError } from '../../lib/index.js';
import { Errno, MAP_SHARED, Nr, Prot } from './linux.js';
let bound;
/** @throws InputError on anything but x86-64 Linux */
export function checkHost() {
    if (process.platform === 'linux' && process.arch === 'x64')
        return;
    throw new InputError('engine', undefined, `native runs guests on the host's own CPU, which must be x86-64 under Linux; this is ${process.arch} ` +
        `under ${process.platform}: take the engine unicorn`);
}
/** What the host refuses, as the one line that a user gets. */
export function refused(what, errno) {
    const name = koffiErrno(errno);
    return new InputError('engine', undefined, `native: the host refuses ${what} (${name}): take the engine unicorn`);
}
function koffiErrno(errno) {
    const found = Object.entries(koffi.os.errno).find(([, value]) => value === errno);
    return found?.[0] ?? `errno ${errno}`;
}
function libc() {
    if (bound !== undefined)
        return bound;
    checkHost();
    const library = koffi.load('libc.so.6');
    bound = {
        syscall: library.func('long syscall(long nr, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e, uintptr_t f)'),
        mmap: library.func('intptr_t mmap(uintptr_t at, size_t length, int prot, int flags, int fd, long offset)'),
        munmap: library.func('int munmap(uintptr_t at, size_t length)'),
        fallocate: library.func('int fallocate(int fd, int mode, long offset, long length)'),
        waitpid: library.func('int waitpid(int pid, uintptr_t status, int options)'),
        kill: library.func('int kill(int pid, int signal)'),
        posix_spawn: library.func('int posix_spawn(uintptr_t pid, const char *path, uintptr_t actions, uintptr_t attributes, ' +
            'uintptr_t argv, uintptr_t envp)'),
        posix_spawn_file_actions_init: library.func('int posix_spawn_file_actions_init(uintptr_t actions)'),
        posix_spawn_file_actions_adddup2: library.func('int posix_spawn_file_actions_adddup2(uintptr_t actions, int from, int to)'),
        posix_spawn_file_actions_addclose: library.func('int posix_spawn_file_actions_addclose(uintptr_t actions, int fd)'),
        posix_spawn_file_actions_destroy: library.func('int posix_spawn_file_actions_destroy(uintptr_t actions)'),
        posix_spawnattr_init: library.func('int posix_spawnattr_init(uintptr_t attributes)'),
        posix_spawnattr_setflags: library.func('int posix_spawnattr_setflags(uintptr_t attributes, short flags)'),
        posix_spawnattr_destroy: library.func('int posix_spawnattr_destroy(uintptr_t attributes)'),
    };
    return bound;
}
/** Where a buffer lies. */
export function pointerTo(buffer) {
    return Number(koffi.address(buffer));
}
const MFD_CLOEXEC = 1;
const MFD_EXEC = 0x10;
/** A file in memory, empty. @throws InputError */
export function memfdCreate(name) {
    const text = new TextEncoder().encode(`${name}\0`);
    const pointer = pointerTo(text.buffer);
    // The second flag, which hardened hosts insist on, is unknown before Linux 6.3.
    for (const flags of [MFD_CLOEXEC | MFD_EXEC, MFD_CLOEXEC]) {
        const fd = libc().syscall(Nr.memfd_create, pointer, flags, 0, 0, 0, 0);
        if (fd >= 0)
            return fd;
        if (koffi.errno() !== Errno.EINVAL)
            break;
    }
    throw refused('memfd_create', koffi.errno());
}
/** Maps a part of a file for reading and writing by the host. @throws InputError */
export function mapShared(fd, offset, sizeBytes) {
    const pointer = libc().mmap(0, sizeBytes, Prot.READ | Prot.WRITE, MAP_SHARED, fd, offset);
    if (Number(pointer) === -1)
        throw refused('a mapping of memory', koffi.errno());
    return Number(pointer);
}
export function unmapShared(pointer, sizeBytes) {
    libc().munmap(pointer, sizeBytes);
}
const FALLOC_FL_PUNCH_HOLE = 2;
const FALLOC_FL_KEEP_SIZE = 1;
/** Gives the memory behind a part of a file back; it reads as zeros then. */
export function punchHole(fd, offset, sizeBytes) {
    libc().fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, sizeBytes);
}
/** Bytes that hold a posix_spawnattr_t or posix_spawn_file_actions_t (336 and 80 in glibc). */
const SPAWN_STRUCT_BYTES = 512;
const POSIX_SPAWN_SETPGROUP = 2;
/**
 * Starts a program with an empty environment, one file as its file descriptor 3 and no other, in a process
 * group of its own: Ctrl-C is for the host alone.
 * @returns its process id, or the negative errno
 */
export function spawn(path, fd) {
    const c = libc();
    const actions = new ArrayBuffer(SPAWN_STRUCT_BYTES);
    const attributes = new ArrayBuffer(SPAWN_STRUCT_BYTES);
    const pid = new Int32Array(1);
    const name = new TextEncoder().encode('tramplab-runner\0');
    const argv = BigUint64Array.of(BigInt(pointerTo(name.buffer)), 0n);
    const envp = new BigUint64Array(1);
    c.posix_spawn_file_actions_init(pointerTo(actions));
    c.posix_spawnattr_init(pointerTo(attributes));
    try {
        c.posix_spawnattr_setflags(pointerTo(attributes), POSIX_SPAWN_SETPGROUP);
        for (const standard of [0, 1, 2])
            c.posix_spawn_file_actions_addclose(pointerTo(actions), standard);
        c.posix_spawn_file_actions_adddup2(pointerTo(actions), fd, 3);
        const error = c.posix_spawn(pointerTo(pid.buffer), path, pointerTo(actions), pointerTo(attributes), pointerTo(argv.buffer), pointerTo(envp.buffer));
        return error === 0 ? pid[0] : -error;
    }
    finally {
        c.posix_spawn_file_actions_destroy(pointerTo(actions));
        c.posix_spawnattr_destroy(pointerTo(attributes));
    }
}
const WNOHANG = 1;
/** How a process ended, in words; undefined while it lives. A process is asked for its end once. */
export function endOf(pid, wait) {
    const status = new Int32Array(1);
    for (;;) {
        const ended = libc().waitpid(pid, pointerTo(status.buffer), wait === 'no' ? WNOHANG : 0);
        if (ended === 0)
            return undefined;
        if (ended === pid)
            break;
        if (koffi.errno() !== Errno.EINTR)
            return 'it is gone';
    }
    const word = status[0];
    const signal = word & 0x7f;
    return signal === 0 ? `exit status ${(word >> 8) & 0xff}` : `signal ${signal}`;
}
export function kill(pid, signal) {
    libc().kill(pid, signal);
}
/** Sends a signal to one thread of a process. */
export function killThread(pid, tid, signal) {
    libc().syscall(Nr.tgkill, pid, tid, signal, 0, 0, 0);
}
const RLIMIT_CORE = 4;
/** A crash of the process leaves no core file. */
export function forbidCoreFile(pid) {
    const limit = new BigUint64Array(2);
    libc().syscall(Nr.prlimit64, pid, RLIMIT_CORE, pointerTo(limit.buffer), 0, 0, 0);
}
const FUTEX_WAIT = 0;
const FUTEX_WAKE = 1;
const timeout = new BigInt64Array(2);
/** Sleeps while the word is `value`, for at most `milliseconds`; may return early. */
export function futexWait(word, value, milliseconds) {
    timeout[0] = BigInt(Math.trunc(milliseconds / 1000));
    timeout[1] = BigInt(Math.trunc((milliseconds % 1000) * 1e6));
    libc().syscall(Nr.futex, word, FUTEX_WAIT, value, pointerTo(timeout.buffer), 0, 0);
}
/** Wakes who sleeps on the word. */
export function futexWake(word) {
    libc().syscall(Nr.futex, word, FUTEX_WAKE, 1, 0, 0, 0);
}
//# sourceMappingURL=host.js.map