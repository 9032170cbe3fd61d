/**
 * Bugs that the kernel has had, or that a manager can have, to be switched on one by one. Each is an
 * `if` beside the code it breaks; with none switched on the manager is right. Identifiers as in the
 * bug list that the mutants are taken from.
 */
export const KERNEL_BUGS = {
  L3: 'no percpu_ref: an image is freed although the original function it called still sleeps',
  L4: 'no module reference: a module is unloaded while its function is traced',
  L5: 'an image is leaked when registering it fails',
  L8: 'RCU-tasks does not wait for exiting tasks',
  L12: 'sleepable programs run with migration enabled',
  L13: 'no recursion counter: a program that is entered again runs again',
  T1: 'fmod_ret programs are not counted against the limit and overflow their array',
  T13: 'a freplace program stays recorded when its poke fails',
  'torn-write': 'text is poked without int3, first byte first',
  'no-tasks-before-kill': 'percpu_ref is killed without waiting for tasks that have not entered yet',
  'no-tasks-after-release': 'an image is freed without waiting for tasks in its epilogue',
  'no-trace-wait': 'an fentry-only image does not wait for sleepable programs',
  'no-tasks-after-trace': 'an fentry-only image does not wait for the code around its programs',
  'one-trace-wait': 'an fentry-only image waits once, as the kernel does, whatever the lifetime of programs',
  'swap-trace-tasks':
    'an fentry-only image waits for the code around its programs first, for sleepable programs then',
  'swap-tasks-kill': 'percpu_ref is killed first, then the tasks that have not entered yet are waited for',
  'no-retire-jump': 'ip_after_call is not patched, so late calls still run fexit programs',
  'early-put': 'the old image is retired before the call at the entry leaves it',
} as const;

export type KernelBug = keyof typeof KERNEL_BUGS;
