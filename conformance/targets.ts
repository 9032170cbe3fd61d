import { toHex } from '../lib/index.ts';
import { targetBtf, targetFuncInfo } from './program-btf.ts';
import { programText, tailCallText } from './program-target.ts';
import { type ArgWord, askedFor, type Caller, type CallResult, type Target, words } from './target.ts';

/*
 * The functions that are traced, with what is known of them: who calls them in a guest, with which
 * arguments, and what they return there.
 */

/** Numbers of the system calls that are made. Kernel: arch/x86/entry/syscalls/syscall_64.tbl */
const NR = {
  read: 0,
  write: 1,
  mmap: 9,
  ioctl: 16,
  socket: 41,
  connect: 42,
  bind: 49,
  listen: 50,
  setsockopt: 54,
  chmod: 90,
  chown: 92,
  getpgid: 121,
  prctl: 157,
  sync: 162,
  setxattr: 188,
  futex: 202,
  openat: 257,
} as const;

const EFAULT = 14;
const EINVAL = 22;
const ENOSYS = 38;
const ENOPROTOOPT = 92;
const EAFNOSUPPORT = 97;

const signed = (returned: bigint): number => Number(BigInt.asIntN(32, returned));
/** A function whose result, when it is an error, is the system call's; `otherwise` when it is 0. */
const errorOr =
  (otherwise: number) =>
  (returned: bigint): CallResult => ({ result: signed(returned) === 0 ? otherwise : signed(returned) });

/** A file of the guest: see guest.ts. */
const FILE = '/file';

function systemCall(
  nr: number,
  args: readonly (number | string)[],
  outcome: Caller['outcome'],
  prepare: readonly string[] = [],
): Caller {
  return { prepare, call: (tag) => [['call', tag, nr, ...args].join(' ')], outcome };
}

interface FunctionOptions extends Pick<Target, 'prototype' | 'body' | 'retBits' | 'caller'> {
  readonly args: readonly ArgWord[];
  readonly recurse?: string;
}

/** A function of the kernel. */
function kernelFunction(fn: string, options: FunctionOptions): Target {
  return { ...options, fn, attachTo: `func=${fn}`, where: `sym:${fn}` };
}

// -- the kernel's own functions for tests: net/bpf/test_run.c ---------------------------------------

/** Program type TRACING, attach type FENTRY, `r0 = 0; exit`: whose test run calls bpf_fentry_test1 and on. */
const TEST_RUNNER =
  'prog runner type=26 attach=24 func=bpf_fentry_test1 insns=b7000000000000009500000000000000';

/** The runner's test run: 0 when the function returned what the kernel expects of it. */
const fentryTest = (expected: bigint): Caller => ({
  prepare: [TEST_RUNNER],
  call: (tag) => [`testrun ${tag} runner`],
  outcome: (returned) => ({
    result: BigInt.asUintN(32, returned) === expected ? 0 : -EFAULT,
    retval: 0,
  }),
});

/** Assembly text that adds up the arguments, the first and those in these registers. */
const sum = (registers: readonly string[]): string =>
  ['mov rax, rdi', ...registers.map((register) => `add rax, ${register}`), 'ret'].join('\n');

export const fentryTest1: Target = kernelFunction('bpf_fentry_test1', {
  prototype: 'int bpf_fentry_test1(int a)',
  args: words([32, 1n]),
  retBits: 32,
  body: 'lea eax, [rdi + 1]\nret',
  caller: fentryTest(2n),
});
export const fentryTest2: Target = kernelFunction('bpf_fentry_test2', {
  prototype: 'int bpf_fentry_test2(int a, u64 b)',
  args: words([32, 2n], [64, 3n]),
  retBits: 32,
  body: sum(['rsi']),
  caller: fentryTest(5n),
});
export const fentryTest3: Target = kernelFunction('bpf_fentry_test3', {
  prototype: 'int bpf_fentry_test3(char a, int b, u64 c)',
  args: words([8, 4n], [32, 5n], [64, 6n]),
  retBits: 32,
  body: sum(['rsi', 'rdx']),
  caller: fentryTest(15n),
});
export const fentryTest4: Target = kernelFunction('bpf_fentry_test4', {
  prototype: 'int bpf_fentry_test4(void *a, char b, int c, u64 d)',
  args: words([64, 7n], [8, 8n], [32, 9n], [64, 10n]),
  retBits: 32,
  body: sum(['rsi', 'rdx', 'rcx']),
  caller: fentryTest(34n),
});
export const fentryTest5: Target = kernelFunction('bpf_fentry_test5', {
  prototype: 'int bpf_fentry_test5(u64 a, void *b, short c, int d, u64 e)',
  args: words([64, 11n], [64, 12n], [16, 13n], [32, 14n], [64, 15n]),
  retBits: 32,
  body: sum(['rsi', 'rdx', 'rcx', 'r8']),
  caller: fentryTest(65n),
});
export const fentryTest6: Target = kernelFunction('bpf_fentry_test6', {
  prototype: 'int bpf_fentry_test6(u64 a, void *b, short c, int d, void *e, u64 f)',
  args: words([64, 16n], [64, 17n], [16, 18n], [32, 19n], [64, 20n], [64, 21n]),
  retBits: 32,
  body: sum(['rsi', 'rdx', 'rcx', 'r8', 'r9']),
  caller: fentryTest(111n),
});

/**
 * Attach type MODIFY_RETURN: whose test run calls bpf_modify_return_test(1, &b) with b = 2, and since 6.12
 * also bpf_modify_return_test2; both add 1 to b and return the sum of all arguments. The program's value
 * holds the sum of what both returned, and how many of them changed b.
 */
const modifyRunner = (fn: string): string =>
  `prog runner type=26 attach=26 func=${fn} insns=b7000000000000009500000000000000`;
/** `others`: what the function that is not looked at gives, and whether it changes b. */
function modifyReturn(fn: string, ran: bigint, others: { ret: number; changes: number }): Caller {
  return {
    prepare: [modifyRunner(fn)],
    call: (tag) => [`testrun ${tag} runner`],
    outcome: (returned) => {
      const changes = others.changes + (BigInt.asUintN(32, returned) === ran ? 1 : 0);
      const ret = (signed(returned) + others.ret) & 0xffff;
      return { result: 0, retval: ((changes << 16) | ret) >>> 0 };
    },
  };
}
const MODIFY_RETURN_RET = 4n;
const MODIFY_RETURN_2_RET = 29n;

export const modifyReturnTest: Target = kernelFunction('bpf_modify_return_test', {
  prototype: 'int bpf_modify_return_test(int a, int *b)',
  args: words([32, 1n], [64, 'given']),
  retBits: 32,
  body: `mov eax, ${MODIFY_RETURN_RET}\nret`,
  caller: {
    // 6.1 as Debian builds it has error injection off, and takes fmod_ret for the security hooks only.
    '6.1': modifyReturn('security_task_getpgid', MODIFY_RETURN_RET, { ret: 0, changes: 0 }),
    '6.12': modifyReturn('bpf_modify_return_test', MODIFY_RETURN_RET, {
      ret: Number(MODIFY_RETURN_2_RET),
      changes: 1,
    }),
  },
});

const modifyReturnTest2Caller = modifyReturn('bpf_modify_return_test', MODIFY_RETURN_2_RET, {
  ret: Number(MODIFY_RETURN_RET),
  changes: 1,
});
export const modifyReturnTest2: Target = kernelFunction('bpf_modify_return_test2', {
  prototype: 'int bpf_modify_return_test2(int a, int *b, short c, int d, void *e, char f, int g)',
  args: words([32, 1n], [64, 'given'], [16, 3n], [32, 4n], [64, 5n], [8, 6n], [32, 7n]),
  retBits: 32,
  body: `mov eax, ${MODIFY_RETURN_2_RET}\nret`,
  caller: modifyReturnTest2Caller,
});

// -- functions behind system calls -------------------------------------------------------------------

export const ksysSync: Target = kernelFunction('ksys_sync', {
  prototype: 'void ksys_sync(void)',
  args: [],
  retBits: 0,
  body: 'ret',
  caller: systemCall(NR.sync, [], () => ({ result: 0 })),
});

const OPTION = 0x1234;
/** An option that no kernel knows: -EINVAL, unless the hook answers. */
const prctl = systemCall(
  NR.prctl,
  [OPTION, '0x1111', '0x222233334444', '-3', '0x8000000000000000'],
  (returned) => ({
    result: signed(returned) === -ENOSYS ? -EINVAL : signed(returned),
  }),
);
const PRCTL_ARGS = words(
  [32, BigInt(OPTION)],
  [64, 0x1111n],
  [64, 0x222233334444n],
  [64, 2n ** 64n - 3n],
  [64, 2n ** 63n],
);
const PRCTL = 'int option, unsigned long arg2, unsigned long arg3, unsigned long arg4, unsigned long arg5';
export const taskPrctl: Target = kernelFunction('security_task_prctl', {
  prototype: `int security_task_prctl(${PRCTL})`,
  args: PRCTL_ARGS,
  retBits: 32,
  body: `mov eax, ${-ENOSYS}\nret`,
  caller: prctl,
});
export const lsmTaskPrctl: Target = kernelFunction('bpf_lsm_task_prctl', {
  ...taskPrctl,
  prototype: `int bpf_lsm_task_prctl(${PRCTL})`,
});

/** Of the init process, which is in no group but that of the kernel's first task. */
const getpgid = systemCall(NR.getpgid, [1], errorOr(0));
export const taskGetpgid: Target = kernelFunction('security_task_getpgid', {
  prototype: 'int security_task_getpgid(struct task_struct *p)',
  args: words([64, 'given']),
  retBits: 32,
  body: 'xor eax, eax\nret',
  caller: getpgid,
});
export const lsmTaskGetpgid: Target = kernelFunction('bpf_lsm_task_getpgid', {
  ...taskGetpgid,
  prototype: 'int bpf_lsm_task_getpgid(struct task_struct *p)',
});

/** A family that is not built in. */
const socket = systemCall(NR.socket, [3, 2, 5], errorOr(-EAFNOSUPPORT));
const SOCKET_ARGS = words([32, 3n], [32, 2n], [32, 5n], [32, 0n]);
export const socketCreate: Target = kernelFunction('security_socket_create', {
  prototype: 'int security_socket_create(int family, int type, int protocol, int kern)',
  args: SOCKET_ARGS,
  retBits: 32,
  body: 'xor eax, eax\nret',
  caller: socket,
});
export const lsmSocketCreate: Target = kernelFunction('bpf_lsm_socket_create', {
  ...socketCreate,
  prototype: 'int bpf_lsm_socket_create(int family, int type, int protocol, int kern)',
});

const OWNER = 1000;
const GROUP = 1001;
export const pathChown: Target = kernelFunction('security_path_chown', {
  // kuid_t and kgid_t are structs of one int, passed by value
  prototype: 'int security_path_chown(const struct path *path, unsigned int uid, unsigned int gid)',
  args: words([64, 'given'], [32, BigInt(OWNER)], [32, BigInt(GROUP)]),
  retBits: 32,
  body: 'xor eax, eax\nret',
  caller: systemCall(NR.chown, [`text:${FILE}`, OWNER, GROUP], errorOr(0)),
});

const MODE = 0o640;
export const pathChmod: Target = kernelFunction('security_path_chmod', {
  prototype: 'int security_path_chmod(const struct path *path, unsigned short mode)',
  args: words([64, 'given'], [16, BigInt(MODE)]),
  retBits: 32,
  body: 'xor eax, eax\nret',
  caller: systemCall(NR.chmod, [`text:${FILE}`, MODE], errorOr(0)),
});

const setxattr = systemCall(
  NR.setxattr,
  [`text:${FILE}`, 'text:trusted.tramplab', 'text:value', 5, 0],
  errorOr(0),
);
export const inodeSetxattr: Target = kernelFunction('security_inode_setxattr', {
  prototype:
    'int security_inode_setxattr(void *ns, struct dentry *dentry, const char *name, const void *value, size_t size, int flags)',
  args: [...words([64, 'given'], [64, 'given'], [64, 'given']), askedFor, ...words([64, 5n], [32, 0n])],
  retBits: 32,
  body: 'xor eax, eax\nret',
  caller: setxattr,
});
/** A hook without a result: its LSM programs are of the fexit kind. */
export const lsmInodePostSetxattr: Target = kernelFunction('bpf_lsm_inode_post_setxattr', {
  prototype:
    'void bpf_lsm_inode_post_setxattr(struct dentry *dentry, const char *name, const void *value, size_t size, int flags)',
  args: [...words([64, 'given'], [64, 'given']), askedFor, ...words([64, 5n], [32, 0n])],
  retBits: 0,
  body: 'ret',
  caller: systemCall(NR.setxattr, [`text:${FILE}`, 'text:trusted.tramplab', 'text:value', 5, 0], () => ({
    result: 0,
  })),
});

const SOL_SOCKET = 1;
const NO_OPTION = 999;
export const skSetsockopt: Target = kernelFunction('sk_setsockopt', {
  // sockptr_t is a struct of a pointer and a bit, 16 bytes: two words
  prototype:
    'int sk_setsockopt(struct sock *sk, int level, int optname, void *optval, bool is_kernel, unsigned int optlen)',
  args: words(
    [64, 'given'],
    [32, BigInt(SOL_SOCKET)],
    [32, BigInt(NO_OPTION)],
    [64, 'given'],
    [1, 0n],
    [32, 4n],
  ),
  retBits: 32,
  body: `mov eax, ${-ENOPROTOOPT}\nret`,
  caller: systemCall(
    NR.setsockopt,
    ['fd:socket', SOL_SOCKET, NO_OPTION, 'room:4', 4],
    (returned) => ({ result: signed(returned) }),
    [`open socket ${NR.socket} 1 1 0`],
  ),
});

// -- more than six words -----------------------------------------------------------------------------

const FUTEX_WAKE = 1;
const FUTEX_REQUEUE = 3;
export const doFutex: Target = kernelFunction('do_futex', {
  prototype: 'long do_futex(u32 *uaddr, int op, u32 val, void *timeout, u32 *uaddr2, u32 val2, u32 val3)',
  args: words(
    [64, 'given'],
    [32, BigInt(FUTEX_WAKE)],
    [32, 7n],
    [64, 0n],
    [64, 0x5000n],
    [32, 0x66n],
    [32, 0x77n],
  ),
  retBits: 64,
  body: 'xor eax, eax\nret',
  caller: systemCall(NR.futex, ['room:64', FUTEX_WAKE, 7, 0x66, '0x5000', 0x77], (returned) => ({
    result: Number(BigInt.asIntN(64, returned)),
  })),
});
export const futexRequeue: Target = kernelFunction('futex_requeue', {
  prototype:
    'int futex_requeue(u32 *uaddr1, unsigned int flags1, u32 *uaddr2, unsigned int flags2, int nr_wake, int nr_requeue, u32 *cmpval, int requeue_pi)',
  args: words(
    [64, 'given'],
    [32, 'given'],
    [64, 'given'],
    [32, 'given'],
    [32, 2n],
    [32, 3n],
    [64, 0n],
    [32, 0n],
  ),
  retBits: 32,
  body: 'xor eax, eax\nret',
  caller: systemCall(NR.futex, ['room:64', FUTEX_REQUEUE, 2, 3, 'room:64', 0], (returned) => ({
    result: signed(returned),
  })),
});
/** A mapping of no bytes, which is refused. */
export const doMmap: Target = kernelFunction('do_mmap', {
  prototype:
    'unsigned long do_mmap(struct file *file, unsigned long addr, unsigned long len, unsigned long prot, unsigned long flags, u64 vm_flags, unsigned long pgoff, unsigned long *populate, struct list_head *uf)',
  args: words(
    [64, 0n],
    [64, 0x10000n],
    [64, 0n],
    [64, 1n],
    [64, 0x22n],
    [64, 0n],
    [64, 5n],
    [64, 'given'],
    [64, 'given'],
  ),
  retBits: 64,
  body: `mov rax, ${-EINVAL}\nret`,
  caller: systemCall(NR.mmap, ['0x10000', 0, 1, '0x22', -1, '0x5000'], (returned) => ({
    result: Number(BigInt.asIntN(64, returned)),
  })),
});

// -- a function that a program can call, and one that sleeps -------------------------------------------

/** An array map's elements cannot be taken out: always -EINVAL. A program that calls it has a key of its own. */
export const arrayDelete: Target = kernelFunction('array_map_delete_elem', {
  prototype: 'long array_map_delete_elem(struct bpf_map *map, void *key)',
  args: words([64, 'given'], [0, 'given']),
  retBits: 32,
  body: `mov rax, ${-EINVAL}\nret`,
  caller: {
    prepare: [],
    call: (tag) => [`delete ${tag} again`],
    outcome: (returned) => ({ result: signed(returned) }),
  },
  recurse: 'again',
});

/** A read from a pipe that sleeps until there is something in it. */
const BYTES_READ = 3;
export const pipeRead: Target = kernelFunction('pipe_read', {
  prototype: 'long pipe_read(struct kiocb *iocb, struct iov_iter *to)',
  args: words([64, 'given'], [64, 'given']),
  retBits: 64,
  body: `call schedule\nmov eax, ${BYTES_READ}\nret`,
  caller: {
    prepare: ['pipe pipe'],
    call: (tag) => [
      `call write ${NR.write} fd:pipe.w text:abc ${BYTES_READ}`,
      `call ${tag} ${NR.read} fd:pipe.r room:64 64`,
    ],
    outcome: (returned) => ({ result: Number(BigInt.asIntN(64, returned)) }),
    park: (tag) => [`spawn ${tag} ${NR.read} fd:pipe.r room:64 64`, `asleep ${tag}`],
    wake: (tag) => [`call write ${NR.write} fd:pipe.w text:abc ${BYTES_READ}`, `join ${tag}`],
  },
});

// -- structs of operations ---------------------------------------------------------------------------------

const STREAM_SOCKET = [NR.socket, 2, 1, 0].join(' ');
const SOL_TCP = 6;
const TCP_CONGESTION = 13;
const SO_REUSEADDR = 2;
const SIOCSIFFLAGS = 0x8914;
/** struct ifreq: "lo", IFF_UP. */
const LOOPBACK_UP = `hex:6c6f${'00'.repeat(14)}0100${'00'.repeat(22)}`;
/** struct sockaddr_in: port 4711 of 127.0.0.1. */
const ADDRESS = `hex:020012677f000001${'00'.repeat(8)}`;
const ADDRESS_BYTES = 16;

/**
 * Congestion control of TCP. A connection that is there already and is given it calls `init`, and as nothing is
 * under way on it, no other member.
 */
export const congestionControl: Target = {
  fn: 'tcp_congestion_ops',
  prototype: 'void init(struct sock *sk)',
  args: words([64, 'given']),
  retBits: 0,
  body: 'ret',
  caller: systemCall(
    NR.setsockopt,
    ['fd:client', SOL_TCP, TCP_CONGESTION, 'text:tramplab', 'tramplab'.length],
    () => ({ result: 0 }),
    [
      // the kernel asks for type information of whoever registers a struct, whatever is in it
      `btf types ${toHex(targetBtf().bytes)}`,
      `open server ${STREAM_SOCKET}`,
      `call up ${NR.ioctl} fd:server ${SIOCSIFFLAGS} ${LOOPBACK_UP}`,
      `call reuse ${NR.setsockopt} fd:server ${SOL_SOCKET} ${SO_REUSEADDR} hex:01000000 4`,
      `call bind ${NR.bind} fd:server ${ADDRESS} ${ADDRESS_BYTES}`,
      `call listen ${NR.listen} fd:server 1`,
      `open client ${STREAM_SOCKET}`,
      `call connect ${NR.connect} fd:client ${ADDRESS} ${ADDRESS_BYTES}`,
    ],
  ),
  attachTo: '',
  where: 'sym:tcp_cong_list',
  struct: { type: 'tcp_congestion_ops', list: 'tcp_cong_list', name: 'tramplab', called: 'init' },
};

// -- functions of BPF programs ---------------------------------------------------------------------------

/** What the target program returns. */
const SUB_RET = 42;
/** A packet's length at least: one Ethernet header. */
const PACKET = '00'.repeat(64);
const testRun: Caller = {
  prepare: [],
  call: (tag) => [`testrun ${tag} target data=${PACKET}`],
  outcome: (returned) => ({ result: 0, retval: Number(BigInt.asUintN(32, returned)) }),
};

function programTarget(
  fn: 'main' | 'sub',
  name: string,
  text: Uint8Array,
  options: { readonly tailCalls: boolean },
): Target {
  const btf = targetBtf();
  const maps = options.tailCalls ? ['map jumps type=3 key=4 value=4 entries=1'] : [];
  const load = `prog target type=3 btf=types funcinfo=${toHex(targetFuncInfo(btf, ['main', 'sub']))} insns=${toHex(text)}`;
  return {
    fn: name,
    prototype: `int ${name}(struct __sk_buff *skb)`,
    args: words([64, 'given']),
    retBits: 32,
    body: `mov eax, ${SUB_RET}\nret`,
    caller: testRun,
    attachTo: `tprog=target tid=${btf.functions[fn]}`,
    where: fn === 'main' ? 'prog:target' : 'sub:target:1',
    made: {
      commands: [`btf types ${toHex(btf.bytes)}`, ...maps, options.tailCalls ? `${load} maps=jumps` : load],
      freplaceWords: `btf=types funcinfo=${toHex(targetFuncInfo(btf, ['sub']))}`,
    },
    tailCalls: options.tailCalls,
  };
}

export const programMain: Target = programTarget('main', 'program_main', programText(SUB_RET), {
  tailCalls: false,
});
export const programSub: Target = programTarget('sub', 'program_sub', programText(SUB_RET), {
  tailCalls: false,
});
export const tailCallingSub: Target = programTarget('sub', 'tail_calling_sub', tailCallText(SUB_RET), {
  tailCalls: true,
});
