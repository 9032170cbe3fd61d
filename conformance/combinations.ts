import {
  type Combination,
  KERNELS,
  type KernelName,
  type ProgramKind,
  type ProgramSpec,
  type Step,
  usualSteps,
} from './combination.ts';
import type { Target } from './target.ts';
import * as targets from './targets.ts';

/*
 * All combinations, by name. A name says the target's part, then the programs.
 */

/** Programs that a trampoline takes. Kernel: BPF_MAX_TRAMP_LINKS */
const MAX_LINKS = 38;

const E2BIG = 7;
const EBUSY = 16;
const ENOTSUPP = 524;

const prog = (kind: ProgramKind, more: Omit<ProgramSpec, 'kind'> = {}): ProgramSpec => ({ kind, ...more });
const fentry: ProgramSpec = prog('fentry');
const fexit: ProgramSpec = prog('fexit');

function combination(
  name: string,
  target: Target,
  programs: readonly ProgramSpec[],
  options: { readonly kernels?: readonly KernelName[]; readonly steps?: readonly Step[] } = {},
): Combination {
  const { kernels = KERNELS, steps = usualSteps(programs) } = options;
  return { name, target, programs, steps, kernels };
}

const NEW: readonly KernelName[] = ['6.12'];
const OLD: readonly KernelName[] = ['6.1'];

// -- every number of arguments, with a program before, behind, and on both sides -----------------------

const ARITIES: readonly (readonly [name: string, target: Target, kernels: readonly KernelName[]])[] = [
  ['0-args', targets.ksysSync, KERNELS],
  ['1-arg', targets.fentryTest1, KERNELS],
  ['2-args', targets.fentryTest2, KERNELS],
  ['3-args', targets.fentryTest3, KERNELS],
  ['4-args', targets.fentryTest4, KERNELS],
  ['5-args', targets.fentryTest5, KERNELS],
  ['6-args', targets.fentryTest6, KERNELS],
  ['small-structs', targets.pathChown, KERNELS],
  ['16-byte-struct', targets.skSetsockopt, KERNELS],
  ['7-args', targets.modifyReturnTest2, NEW],
  ['7-args-last-small', targets.doFutex, NEW],
  ['8-args', targets.futexRequeue, NEW],
  ['9-args', targets.doMmap, NEW],
];

const arities = ARITIES.flatMap(([name, target, kernels]) => [
  combination(`${name}-fentry`, target, [fentry], { kernels }),
  combination(`${name}-fexit`, target, [fexit], { kernels }),
  combination(`${name}-fentry-fexit`, target, [fentry, fexit], { kernels }),
]);

// -- programs that decide what the function returns ------------------------------------------------------

const modify = (returns: number, more: Omit<ProgramSpec, 'kind' | 'returns'> = {}): ProgramSpec =>
  prog('fmod_ret', { returns, ...more });

const modifying: Combination[] = [
  combination('fmod-ret-zero', targets.taskGetpgid, [modify(0)]),
  combination('fmod-ret-error', targets.taskGetpgid, [modify(-1)]),
  combination('fmod-ret-error-fexit', targets.taskPrctl, [modify(-13), fexit]),
  combination('fmod-ret-positive', targets.taskPrctl, [modify(0x7b)]),
  combination('fmod-ret-two-zero', targets.socketCreate, [modify(0), modify(0)]),
  combination('fmod-ret-first-answers', targets.socketCreate, [modify(0), modify(-13)]),
  combination('fmod-ret-second-answers', targets.socketCreate, [modify(-13), modify(0)]),
  combination('fmod-ret-every-kind', targets.socketCreate, [fentry, modify(0), fexit]),
  combination('fmod-ret-every-kind-error', targets.socketCreate, [fentry, modify(-22), fexit]),
  combination('fmod-ret-6-args', targets.inodeSetxattr, [fentry, modify(0), modify(-95), fexit]),
  combination('fmod-ret-umode', targets.pathChmod, [modify(-30), fexit]),
  combination('fmod-ret-small-structs', targets.pathChown, [fentry, modify(-1), fexit]),
  combination('fmod-ret-test', targets.modifyReturnTest, [modify(0)], { kernels: NEW }),
  combination('fmod-ret-test-value', targets.modifyReturnTest, [fentry, modify(7), fexit], { kernels: NEW }),
  combination('fmod-ret-7-args', targets.modifyReturnTest2, [fentry, modify(0), fexit], { kernels: NEW }),
  combination('fmod-ret-7-args-value', targets.modifyReturnTest2, [modify(-5), fexit], { kernels: NEW }),
  combination('modify-return-test-fexit', targets.modifyReturnTest, [fentry, fexit]),
];

// -- security hooks ------------------------------------------------------------------------------------------

const lsm = (more: Omit<ProgramSpec, 'kind'> = {}): ProgramSpec => prog('lsm', more);
const lsmCgroup = (returns: 0 | 1): ProgramSpec => prog('lsm_cgroup', { returns });

const hooks: Combination[] = [
  combination('lsm', targets.lsmTaskGetpgid, [lsm()]),
  combination('lsm-denies', targets.lsmTaskGetpgid, [lsm({ returns: -1 })]),
  combination('lsm-two-cookies', targets.lsmTaskGetpgid, [lsm({ cookie: 0x11n }), lsm({ cookie: 0x22n })]),
  combination('lsm-sleepable', targets.lsmTaskPrctl, [lsm({ sleepable: true })]),
  combination('lsm-sleepable-denies', targets.lsmTaskPrctl, [
    lsm({ sleepable: true, returns: -1, cookie: 5n }),
  ]),
  combination('lsm-both', targets.lsmTaskPrctl, [lsm(), lsm({ sleepable: true, returns: -38 })]),
  combination('lsm-with-fentry-fexit', targets.lsmSocketCreate, [fentry, lsm(), fexit]),
  combination('lsm-void-hook', targets.lsmInodePostSetxattr, [lsm()]),
  combination('lsm-arg-count', targets.lsmTaskPrctl, [
    lsm({ argCount: true }),
    prog('fexit', { funcIp: true }),
  ]),
  combination('lsm-cgroup', targets.lsmSocketCreate, [lsmCgroup(1)]),
  combination('lsm-cgroup-denies', targets.lsmSocketCreate, [lsmCgroup(0)]),
  combination('lsm-cgroup-with-lsm-fexit', targets.lsmSocketCreate, [lsmCgroup(1), lsm(), fexit]),
];

// -- sleepable programs of the other kinds: 6.1 as Debian builds it takes none --------------------------------

const asleep: Combination[] = [
  combination('sleepable-fentry', targets.fentryTest1, [prog('fentry', { sleepable: true })], {
    kernels: NEW,
  }),
  combination('sleepable-fexit', targets.fentryTest1, [prog('fexit', { sleepable: true, cookie: 9n })], {
    kernels: NEW,
  }),
  combination('sleepable-fmod-ret', targets.fentryTest1, [modify(3, { sleepable: true })], { kernels: NEW }),
  combination(
    'sleepable-and-not',
    targets.fentryTest1,
    [
      prog('fentry', { sleepable: true }),
      fentry,
      modify(0, { sleepable: true }),
      modify(0),
      prog('fexit', { sleepable: true }),
      fexit,
    ],
    { kernels: NEW },
  ),
];

// -- what programs ask for --------------------------------------------------------------------------------------

const asking: Combination[] = [
  combination('func-ip-fentry', targets.fentryTest1, [prog('fentry', { funcIp: true })]),
  combination('func-ip-fexit', targets.fentryTest6, [prog('fexit', { funcIp: true })]),
  combination('func-ip-fmod-ret', targets.taskPrctl, [modify(0, { funcIp: true }), fexit]),
  combination('func-ip-0-args', targets.ksysSync, [prog('fentry', { funcIp: true })]),
  combination('func-ip-one-of-two', targets.fentryTest3, [fentry, prog('fexit', { funcIp: true })]),
  combination('arg-count-0', targets.ksysSync, [prog('fentry', { argCount: true })]),
  combination('arg-count-6', targets.fentryTest6, [prog('fexit', { argCount: true, funcIp: true })]),
  combination('arg-count-struct', targets.skSetsockopt, [prog('fentry', { argCount: true })]),
  combination('arg-count-9', targets.doMmap, [prog('fexit', { argCount: true, funcIp: true })], {
    kernels: NEW,
  }),
  combination('cookie-small', targets.fentryTest1, [prog('fentry', { cookie: 1n })]),
  combination('cookie-zero', targets.fentryTest1, [prog('fexit', { cookie: 0n })]),
  combination('cookie-32-bits', targets.fentryTest2, [prog('fexit', { cookie: 0xffff_ffffn })]),
  combination('cookie-64-bits', targets.fentryTest2, [prog('fentry', { cookie: 0x0123_4567_89ab_cdefn })]),
  combination('cookie-sign-extended', targets.fentryTest1, [
    prog('fentry', { cookie: 0xffff_ffff_8000_0000n }),
  ]),
  combination('cookie-just-too-negative', targets.fentryTest1, [
    prog('fentry', { cookie: 0xffff_ffff_7fff_ffffn }),
  ]),
  combination('cookies-of-each', targets.socketCreate, [
    prog('fentry', { cookie: 0xa1n }),
    prog('fentry', { cookie: 0xa2n }),
    modify(0, { cookie: 0xb1n }),
    prog('fexit', { cookie: 0xc1n }),
    prog('fexit', { cookie: 0xc2n << 40n }),
  ]),
];

// -- many programs --------------------------------------------------------------------------------------------------

const repeat = (count: number, spec: (i: number) => ProgramSpec): ProgramSpec[] =>
  Array.from({ length: count }, (_, i) => spec(i));
const threeKinds = (i: number): ProgramSpec => [fentry, modify(0), fexit][i % 3] as ProgramSpec;

/** One program more than a trampoline takes: the last is refused, and the others go on as before. */
function tooMany(programs: readonly ProgramSpec[]): Step[] {
  const last = programs.length - 1;
  return [
    ...programs.map(
      (_, program): Step => ({ do: 'attach', program, ...(program === last ? { refused: E2BIG } : {}) }),
    ),
    { do: 'look' },
    { do: 'call' },
  ];
}

const many: Combination[] = [
  combination('two-fentry', targets.fentryTest4, [fentry, fentry]),
  combination('three-fexit', targets.fentryTest4, [fexit, fexit, fexit]),
  combination(
    'twelve-of-two-kinds',
    targets.fentryTest5,
    repeat(12, (i) => (i % 2 === 0 ? fentry : fexit)),
  ),
  combination(
    '38-fentry',
    targets.fentryTest1,
    repeat(MAX_LINKS, () => fentry),
  ),
  combination(
    '38-fexit',
    targets.fentryTest6,
    repeat(MAX_LINKS, () => fexit),
  ),
  combination('38-of-three-kinds', targets.socketCreate, repeat(MAX_LINKS, threeKinds)),
  manyTimes(
    '39-fentry',
    targets.fentryTest2,
    repeat(MAX_LINKS + 1, () => fentry),
  ),
  manyTimes('39-of-three-kinds', targets.socketCreate, repeat(MAX_LINKS + 1, threeKinds)),
];

function manyTimes(name: string, target: Target, programs: readonly ProgramSpec[]): Combination {
  return combination(name, target, programs, { steps: tooMany(programs) });
}

// -- programs that come and go -----------------------------------------------------------------------------------------

const LOOK: Step = { do: 'look' };
const CALL: Step = { do: 'call' };
const attach = (program: number): Step => ({ do: 'attach', program });
const detach = (program: number): Step => ({ do: 'detach', program });

const changing: Combination[] = [
  combination('each-kind-comes-and-goes', targets.socketCreate, [fentry, modify(0), fexit], {
    steps: [
      ...[attach(0), LOOK, CALL, attach(1), LOOK, CALL, attach(2), LOOK, CALL],
      ...[detach(0), LOOK, CALL, detach(1), LOOK, CALL, detach(2), LOOK, CALL],
    ],
  }),
  combination('the-oldest-goes-first', targets.fentryTest2, [fentry, fentry, fexit, fexit], {
    steps: [
      ...[attach(0), attach(1), attach(2), attach(3), LOOK, CALL],
      ...[detach(0), LOOK, CALL, detach(2), LOOK, CALL, detach(1), detach(3), LOOK],
    ],
  }),
  combination('attached-again', targets.fentryTest1, [fexit], {
    steps: [attach(0), LOOK, CALL, detach(0), LOOK, attach(0), LOOK, CALL, detach(0), LOOK],
  }),
  combination('detached-while-asleep', targets.pipeRead, [fexit], {
    steps: [attach(0), LOOK, { do: 'park' }, detach(0), { do: 'lookAgain' }, { do: 'wake' }, LOOK],
  }),
  combination('replaced-while-asleep', targets.pipeRead, [fexit, fentry], {
    steps: [
      ...([attach(0), LOOK, { do: 'park' }, attach(1), { do: 'lookAgain' }, { do: 'wake' }] as Step[]),
      ...[LOOK, CALL, detach(0), detach(1), LOOK],
    ],
  }),
  combination('seen-after-sleep', targets.pipeRead, [fentry, fexit], {
    steps: [attach(0), attach(1), LOOK, { do: 'park' }, { do: 'lookAgain' }, { do: 'wake' }, CALL],
  }),
];

// -- programs that call the function that they trace --------------------------------------------------------------------

const again: Omit<ProgramSpec, 'kind'> = { recurses: true };
const recursion: Combination[] = [
  combination('recursion-fentry', targets.arrayDelete, [prog('fentry', again)]),
  combination('recursion-fexit', targets.arrayDelete, [prog('fexit', again)]),
  combination('recursion-of-one-runs-the-other', targets.arrayDelete, [prog('fentry', again), fentry, fexit]),
  combination('recursion-of-both', targets.arrayDelete, [prog('fentry', again), prog('fexit', again)]),
];

// -- programs on programs ---------------------------------------------------------------------------------------------------

const freplace = prog('freplace', { returns: 99 });
/** A function with programs on it cannot be replaced, nor the other way round. */
function exclusive(first: number, second: number): Step[] {
  return [
    attach(first),
    { do: 'attach', program: second, refused: EBUSY },
    LOOK,
    CALL,
    detach(first),
    LOOK,
    CALL,
  ];
}

const onPrograms: Combination[] = [
  combination('program-fentry', targets.programMain, [fentry]),
  combination('program-fexit', targets.programMain, [fexit]),
  combination('subprogram-fentry-fexit', targets.programSub, [fentry, fexit]),
  combination('tail-call-fentry', targets.tailCallingSub, [fentry]),
  combination('tail-call-fexit', targets.tailCallingSub, [prog('fexit', { funcIp: true })]),
  combination('freplace', targets.programSub, [freplace]),
  combination('fentry-blocks-freplace', targets.programSub, [fentry, freplace], { steps: exclusive(0, 1) }),
  combination('freplace-blocks-fentry', targets.programSub, [freplace, fentry], { steps: exclusive(0, 1) }),
];

// -- programs as members of a struct ---------------------------------------------------------------------------------------

const member = (name: string, returns = 0): ProgramSpec => prog('struct_ops', { member: name, returns });
const REGISTERED: readonly Step[] = [{ do: 'register' }, LOOK, CALL, { do: 'unregister' }];

const members: Combination[] = [
  combination(
    'struct-ops',
    targets.congestionControl,
    [member('ssthresh', 2), member('cong_avoid'), member('undo_cwnd', 3), member('init')],
    {
      steps: REGISTERED,
    },
  ),
  combination(
    'struct-ops-seven-members',
    targets.congestionControl,
    [
      ...[member('ssthresh', 2), member('cong_avoid'), member('set_state'), member('cwnd_event')],
      ...[member('pkts_acked'), member('undo_cwnd', 3), member('init')],
    ],
    { steps: REGISTERED },
  ),
];

// -- more words than a kernel takes ---------------------------------------------------------------------------------------------

const refusedSteps: readonly Step[] = [{ do: 'attach', program: 0, refused: ENOTSUPP }, LOOK, CALL];
const tooWide: Combination[] = [
  combination('7-args-refused', targets.doFutex, [fentry], { kernels: OLD, steps: refusedSteps }),
];

export const COMBINATIONS: readonly Combination[] = [
  ...arities,
  ...modifying,
  ...hooks,
  ...asleep,
  ...asking,
  ...many,
  ...changing,
  ...recursion,
  ...onPrograms,
  ...members,
  ...tooWide,
];

/** The short form: ten that have a bit of everything. */
export const SHORT: readonly string[] = [
  '1-arg-fentry',
  '16-byte-struct-fentry-fexit',
  'fmod-ret-every-kind-error',
  'lsm-sleepable-denies',
  'func-ip-fexit',
  'cookies-of-each',
  '38-of-three-kinds',
  'detached-while-asleep',
  'recursion-fentry',
  'tail-call-fexit',
];

export function combinationsOf(kernel: KernelName): Combination[] {
  return COMBINATIONS.filter(({ kernels }) => kernels.includes(kernel));
}
