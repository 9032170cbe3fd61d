/** System calls. */
export declare const Nr: {
    readonly mmap: 9;
    readonly munmap: 11;
    readonly rt_sigaction: 13;
    readonly rt_sigprocmask: 14;
    readonly rt_sigreturn: 15;
    readonly clone: 56;
    readonly getppid: 110;
    readonly sigaltstack: 131;
    readonly prctl: 157;
    readonly arch_prctl: 158;
    readonly futex: 202;
    readonly exit_group: 231;
    readonly tgkill: 234;
    readonly prlimit64: 302;
    readonly seccomp: 317;
    readonly memfd_create: 319;
};
export declare const Signal: {
    readonly ILL: 4;
    readonly TRAP: 5;
    readonly BUS: 7;
    readonly FPE: 8;
    readonly KILL: 9;
    readonly USR1: 10;
    readonly SEGV: 11;
    readonly SYS: 31;
};
export declare const Errno: {
    readonly ENOENT: 2;
    readonly EINTR: 4;
    readonly EACCES: 13;
    readonly EINVAL: 22;
};
export declare const Prot: {
    readonly READ: 1;
    readonly WRITE: 2;
    readonly EXEC: 4;
};
export declare const MAP_SHARED = 1;
export declare const MAP_FIXED = 16;
