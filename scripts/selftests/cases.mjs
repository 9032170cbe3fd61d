// What is done with each selftest and what must come of it: in our words, what the kernel's prog_tests of the
// same name do. A test run of a program is, here, a call of what calls the traced functions (targets.c).

const EINVAL = -22n;
const EINTR = -4n;
/** The thread group of every task in the lab, as bpf_get_current_pid_tgid says it. */
const TGID = 1000;
/** Kernel: BPF_MAX_TRAMP_LINKS, which the test knows by this number too. */
const MAX_TRAMP_PROGS = 38;

const lower = (word) => BigInt.asIntN(16, word);
const upper = (word) => BigInt.asUintN(32, word) >> 16n;

/** Whether the integer results `test1_result` to `testN_result` are all 1. */
function checkResults(check, object, numbers) {
  for (const n of numbers) check(`test${n}_result`, object.get(`test${n}_result`), 1n);
}

/** What an attempt is refused with: an errno's name, else a message; undefined when it is not refused. */
function refusal(attempt) {
  try {
    attempt();
    return undefined;
  } catch (error) {
    return error.code ?? error.message;
  }
}

function attachRunDetachTwice({ lab, load, check }) {
  const object = load();
  for (const round of ['', ' again']) {
    const attached = object.attachAll();
    check(`attached${round}`, attached.length, 8);
    check(
      `attaching test1 twice${round}`,
      refusal(() => object.attach('test1')),
      'EBUSY',
    );
    check(`wrong results of functions${round}`, lab.call('run_fentry_tests').ret, 0n);
    checkResults(check, object, [1, 2, 3, 4, 5, 6, 7, 8]);
    for (const attachment of attached) attachment.detach();
    for (let n = 1; n <= 8; n++) object.set(`test${n}_result`, 0);
  }
  // Ours: nothing runs any more.
  lab.call('run_fentry_tests');
  for (let n = 1; n <= 8; n++) check(`test${n}_result, detached`, object.get(`test${n}_result`), 0n);
}

function modifyReturn({ lab, load, check }) {
  for (const [inputRetval, sideEffect, result] of [
    [0n, 1n, 4n],
    [EINVAL, 0n, EINVAL],
  ]) {
    const object = load();
    object.attachAll();
    object.set('input_retval', inputRetval);
    const { ret } = lab.call('run_modify_return_test');
    check(`result for input_retval ${inputRetval}`, lower(ret), result);
    check(`side effect for input_retval ${inputRetval}`, upper(ret), sideEffect);
    for (const name of ['fentry_result', 'fexit_result', 'fmod_ret_result']) {
      check(`${name} for input_retval ${inputRetval}`, object.get(name), 1n);
    }
    object.close();
  }
}

function funcIp({ lab, load, check }) {
  const object = load();
  object.attachAll();
  check('wrong results of functions', lab.call('run_fentry_tests').ret, 0n);
  check('result of bpf_modify_return_test', lower(lab.call('run_modify_return_test').ret), 4n);
  checkResults(check, object, [1, 2, 5]);
}

function funcArgs({ lab, load, check }) {
  const object = load();
  object.attachAll();
  check('wrong results of functions', lab.call('run_fentry_tests').ret, 0n);
  check('result of bpf_modify_return_test', lab.call('run_modify_return_test').ret, 1234n);
  checkResults(check, object, [1, 2, 3, 4]);
}

/** A task sleeps in the traced system call while its programs are detached, and is killed then. */
function fexitSleep({ lab, target, load, check, Scheduler }) {
  const object = load();
  const attached = object.attachAll();
  object.set('pid', TGID);
  const symbol = (name) => target.module.contents.symbols.find((one) => one.name === name).address;
  const fn = symbol('run_nanosleep');
  const calls = [
    { fn, args: [0n, 1n] },
    { fn, args: [10n, 0n] },
  ];
  const sched = new Scheduler(lab.kernel);
  const task = sched.spawn('sleeper', 1, () => calls.shift());
  const goOn = () => {
    if (task.asleep) sched.wake(task);
    if (!task.onCpu) sched.dispatch(task);
    return sched.run(task.cpu, 1000).what;
  };
  check('first sleep', goOn(), 'slept');
  check('first sleep, woken', goOn(), 'returned');
  check('second sleep', goOn(), 'slept');
  check('fentry_cnt while it sleeps', object.get('fentry_cnt'), 2n);
  check('fexit_cnt while it sleeps', object.get('fexit_cnt'), 1n);
  for (const attachment of attached) attachment.detach();
  // Only the image with both programs is stuck: the task will return into it.
  check('images while it sleeps', lab.report().images.length, 1);
  lab.machine.memory.write(symbol('fatal_signal'), Uint8Array.of(1, 0, 0, 0));
  check('second sleep, killed', goOn(), 'returned');
  check('its result', BigInt.asIntN(64, task.results[1]), EINTR);
  check('the task afterwards', goOn(), 'gone');
  check('fexit_cnt afterwards', object.get('fexit_cnt'), 1n);
  lab.kernel.settle();
  check('images afterwards', lab.report().images.length, 0);
}

/** Before v6.1 fmod_ret programs are not counted, and the kernel's test of then attaches none. */
function trampolineCount({ lab, load, check, since }) {
  const names = since('v6.1')
    ? ['fentry_test', 'fmod_ret_test', 'fexit_test']
    : ['fentry_test', 'fexit_test'];
  for (let i = 0; i < MAX_TRAMP_PROGS; i++) load().attach(names[i % names.length]);
  const extra = load();
  check(
    'attaching one more',
    refusal(() => extra.attach(names[1])),
    'E2BIG',
  );
  const { ret } = lab.call('run_modify_return_test');
  check('result of bpf_modify_return_test', lower(ret), 4n);
  check('its side effect', upper(ret), 1n);
}

/** Before v6.1 one of the programs has no helper either; without it, the structs are what is refused. */
function tracingStruct({ lab, load, check, since }) {
  const object = load(since('v6.1') ? [] : ['test_struct_arg_2']);
  object.attachAll();
  lab.call('run_struct_tests');
  const expected = {
    ...{ t1_a_a: 2, t1_a_b: 3, t1_b: 1, t1_c: 4, t1_nregs: 4 },
    ...{ t1_reg0: 2, t1_reg1: 3, t1_reg2: 1, t1_reg3: 4, t1_ret: 10 },
    ...{ t2_a: 1, t2_b_a: 2, t2_b_b: 3, t2_c: 4, t2_ret: 10 },
    ...{ t3_a: 1, t3_b: 4, t3_c_a: 2, t3_c_b: 3, t3_ret: 10 },
    ...{ t4_a_a: 10, t4_b: 1, t4_c: 2, t4_d: 3, t4_e_a: 2, t4_e_b: 3, t4_ret: 21, t5_ret: 1 },
  };
  for (const [name, value] of Object.entries(expected)) check(name, object.get(name), BigInt(value));
}

/**
 * The selftests. `since` is the first revision whose kernel takes the programs; an earlier one must refuse them with
 * what `refusedWith` says. `apart` are the programs of the object that nothing attaches here, and why.
 */
export const CASES = [
  {
    name: 'fentry_test',
    since: 'v5.13',
    shows: 'arguments of every width; attached, detached and attached again; EBUSY for a second attach',
    run: attachRunDetachTwice,
  },
  {
    name: 'fexit_test',
    since: 'v5.13',
    shows: 'arguments and results; attached, detached and attached again; EBUSY for a second attach',
    run: attachRunDetachTwice,
  },
  {
    name: 'modify_return',
    since: 'v5.13',
    shows: 'the three kinds in their order; a result of 0 lets the function run, -EINVAL replaces it',
    run: modifyReturn,
  },
  {
    name: 'get_func_ip_test',
    since: 'v5.15',
    refusedWith: /bpf_get_func_ip/,
    apart: { programs: ['test3', 'test4', 'test6'], why: 'they are kprobes, and the lab has none' },
    shows: "the traced function's address is its symbol's, in the three kinds",
    run: funcIp,
  },
  {
    name: 'get_func_args_test',
    since: 'v6.1',
    refusedWith: /bpf_get_func_arg_cnt/,
    shows: 'argument by number, result, their errors; a result that fmod_ret replaces',
    run: funcArgs,
  },
  {
    name: 'fexit_sleep',
    since: 'v5.13',
    shows: 'detached while a task sleeps in the function, which is killed then: the fexit program is skipped',
    run: fexitSleep,
  },
  {
    name: 'test_trampoline_count',
    since: 'v5.13',
    shows:
      '38 programs on one function and E2BIG for one more; of all three kinds from v6.1 on, which is when fmod_ret came to count',
    run: trampolineCount,
  },
  {
    name: 'tracing_struct',
    since: 'v6.1',
    refusedWith: /by value/,
    shows: 'structs by value in one and two registers',
    run: tracingStruct,
  },
];
