/* Numbers that Linux has for things, on x86-64. */
/** System calls. */
export const Nr = {
    mmap: 9,
    munmap: 11,
    rt_sigaction: 13,
    rt_sigprocmask: 14,
    rt_sigreturn: 15,
    clone: 56,
    getppid: 110,
    sigaltstack: 131,
    prctl: 157,
    arch_prctl: 158,
    futex: 202,
    exit_group: 231,
    tgkill: 234,
    prlimit64: 302,
    seccomp: 317,
    memfd_create: 319,
};
export const Signal = {
    ILL: 4,
    TRAP: 5,
    BUS: 7,
    FPE: 8,
    KILL: 9,
    USR1: 10,
    SEGV: 11,
    SYS: 31,
};
export const Errno = { ENOENT: 2, EINTR: 4, EACCES: 13, EINVAL: 22 };
export const Prot = { READ: 1, WRITE: 2, EXEC: 4 };
export const MAP_SHARED = 1;
export const MAP_FIXED = 0x10;
//# sourceMappingURL=linux.js.map