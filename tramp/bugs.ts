import { RUNTIME_BUGS } from '../jit/index.ts';
import type { ManagedRevision } from './revisions.ts';

/**
 * Bugs that the kernel has had, or that a manager can have, to be switched on one by one. Each is an
 * `if` beside the code it breaks; with none switched on the manager is right. Identifiers that begin with L
 * or T as in the bug list that the mutants are taken from; `L9-asleep` is L9 made in another place.
 */
export const MANAGER_BUGS = {
  // who waits for whom
  L1: 'a program is let go when its image is retired, so a task preempted before its enter is not waited for',
  L2: 'a program is let go when no task runs in its old image, so one asleep in an earlier program is not waited for',
  L3: 'no percpu_ref: an image is freed although the original function it called still sleeps',
  L4: 'no module reference: a module is unloaded while its function is traced',
  L8: 'RCU-tasks does not wait for exiting tasks',
  L9: 'an RCU-tasks-trace grace period takes a reader inside of a second section for one that has left',
  'L9-asleep': 'an RCU-tasks-trace grace period ends when a reader sleeps',
  'late-callbacks': 'callbacks that arrive during a grace period are run at its end',
  'no-tasks-before-kill': 'percpu_ref is killed without waiting for tasks that have not entered yet',
  'no-kill': 'an image is freed without waiting for calls between its enter and its exit',
  'no-tasks-after-release': 'an image is freed without waiting for tasks in its epilogue',
  'no-trace-wait': 'an fentry-only image does not wait for sleepable programs',
  'no-tasks-after-trace': 'an fentry-only image does not wait for the code around its programs',
  'one-trace-wait': 'an fentry-only image waits once, as the kernel does, whatever the lifetime of programs',
  'swap-trace-tasks':
    'an fentry-only image waits for the code around its programs first, for sleepable programs then, once each',
  'swap-tasks-kill': 'percpu_ref is killed first, then the tasks that have not entered yet are waited for',
  'swap-kill-release': 'tasks in the epilogue are waited for first, then percpu_ref is killed',
  'no-retire-jump': 'ip_after_call is not patched, so late calls still run fexit programs',
  'early-put': 'the old image is retired before the call at the entry leaves it',
  'early-put-last': 'the last image is retired before the call at the entry is taken away',
  'kill-unconfirmed': 'percpu_ref is counted together before a grace period has confirmed the kill',
  'sum-one-cpu': 'percpu_ref is counted together over the first CPU only',
  'own-reference-kept': "killing a percpu_ref does not drop its owner's reference",
  'replacement-unheld': 'a freplace program is not kept while tasks can be in it',
  // the table and what attaching asks
  T1: 'fmod_ret programs are not counted against the limit and overflow their array',
  'one-too-few': 'the limit of programs is one too low',
  'fexit-uncounted': 'fexit programs are not counted against the limit that they share with fentry',
  'limit-by-kind': 'each kind of program is counted against the limit by itself',
  T2: 'a function with as many arguments as are allowed is refused',
  T7: 'the site table keeps the old address when a direct call is modified',
  'T7-site': 'the site table has the new address when a direct call is modified, the site the old one',
  T8: 'the site table keeps a direct call that could not be put in place',
  T12: 'the first byte behind a symbol counts as inside',
  'T12-module': 'the first byte behind a module counts as inside',
  T13: 'a freplace program stays recorded when its poke fails',
  'linked-unchecked': 'a program that is attached already is attached again',
  'link-unchecked': 'a link that is in another list already is attached again',
  'program-unchecked': 'a program is attached once more by another link, where it is already',
  'cookie-lost': 'programs get the cookie of the newest program of their kind',
  'replaced-unchecked': 'programs are attached to a function that is replaced',
  'traced-unchecked': 'a function that is traced is replaced',
  'guard-unchecked': 'a program in a prog array is replaced',
  'extended-unchecked': 'a program that is replaced is put into a prog array',
  'extended-kept': 'a program counts as replaced after its freplace program is detached',
  'replacement-recorded': 'a freplace program stays recorded when it is detached',
  'oldest-first': 'programs run oldest first',
  'lsm-by-name': 'LSM programs may replace the result of a hook that has none',
  'fmod-ret-alone': 'an image with fmod_ret programs and no fexit program does not call the original',
  'ip-of-fentry': "only fentry programs are asked whether they want the function's address",
  'short-key': 'trampolines are told apart by the lower half of their keys',
  'number-kept': 'images go on being numbered after the last program is detached',
  'number-stuck': 'images keep the number of the first',
  'filter-unreported': 'a site that cannot be filtered for is not reported',
  // sites that are shared with live patches
  'self-unasked':
    'a trampoline that comes to a patched function is not asked: its image calls the function itself',
  'peer-unasked': 'an image is not made again when a live patch comes',
  'again-unprepared': 'an image that is to be made again is put in place once more as it is',
  'share-kept': 'that a site was shared stays noted when the live patch has gone',
  'share-forgotten': 'that a site is shared is forgotten by the next update',
  'T7-shared': 'code of ftrace that calls both goes on calling the old image',
  'unpatch-forgets': 'a live patch that goes leaves no call at the entry',
  // text
  'torn-write': 'text is poked without int3, first byte first',
  'torn-tail': 'text is poked without int3, last bytes first',
  'int3-unhandled': 'nobody answers for the int3 while the last byte is poked',
  'poke-short': 'a poke leaves out the last byte',
  'poke-long': 'a poke writes one byte too many',
  'poke-unchecked': 'a poke does not compare the bytes that it replaces',
  'ftrace-unchecked': 'a site is patched without comparing the bytes that it replaces',
  // what is given back
  L5: 'an image is leaked when putting it in place fails',
  'L5-emit': 'an image is leaked when emitting fails',
  'im-kept': 'the struct of an image is leaked when its page cannot be had',
  'charge-kept': "the charge stays when an image's page cannot be had",
  'text-kept': 'the page of an image is leaked when its percpu_ref cannot be had',
  'failed-retired': 'an image that could not be put in place is waited for as if somebody could be in it',
  'again-leaked': 'an image that is made again leaves the first one behind',
  'flags-kept': 'flags of an update that fails stay',
  'chunks-kept': 'the chunks of an image stay taken when it is freed',
  'room-of-a-page': 'an image has a page, whatever it was said to need',
  'uncharged-never': 'the charge stays when an image is freed',
  'ksym-kept': 'the symbol stays when an image is freed',
  'pcref-kept': 'the counters of the percpu_ref stay when an image is freed',
  'programs-kept': 'a freed image keeps its references to programs',
  'module-kept': 'the reference to the module stays when registering fails',
  'module-kept-last': 'the reference to the module stays when the last program is detached',
  'module-kept-by-program': 'a program that is freed keeps the module of what it traced',
  'module-held-twice':
    'a program that traces a module in a second place takes a reference that it never gives back',
  'reference-kept': 'the reference to the trampoline stays when attaching fails',
  'reference-kept-detach': 'the reference to the trampoline stays when a program is detached',
  'listed-kept': 'a program stays on the list when attaching fails',
  'linked-kept': 'a program counts as attached when attaching fails',
  'site-kept': 'the call stays at the entry when ftrace then refuses it',
} as const;

const BEFORE_6_1: readonly ManagedRevision[] = ['v5.13', 'v5.15'];
const BEFORE_6_12: readonly ManagedRevision[] = [...BEFORE_6_1, 'v6.1'];
const SINCE_6_12: readonly ManagedRevision[] = ['v6.12'];
const SINCE_6_1: readonly ManagedRevision[] = ['v6.1', ...SINCE_6_12];

/** Revisions that have what a bug breaks; of a bug that is not named, all. */
export const BUG_REVISIONS: Readonly<Partial<Record<KernelBug, readonly ManagedRevision[]>>> = {
  L14: SINCE_6_1,
  L15: SINCE_6_1,
  'run-ctx-not-current': SINCE_6_1,
  'run-ctx-kept': SINCE_6_1,
  'limit-by-kind': SINCE_6_1,
  'link-unchecked': SINCE_6_1,
  'program-unchecked': SINCE_6_1,
  'cookie-lost': SINCE_6_1,
  'guard-unchecked': SINCE_6_1,
  'extended-unchecked': SINCE_6_1,
  'extended-kept': SINCE_6_1,
  'number-kept': BEFORE_6_1,
  'number-stuck': BEFORE_6_1,
  'filter-unreported': SINCE_6_12,
  'self-unasked': SINCE_6_1,
  'peer-unasked': SINCE_6_1,
  'again-unprepared': SINCE_6_1,
  'share-kept': SINCE_6_1,
  'share-forgotten': SINCE_6_1,
  'T7-shared': SINCE_6_1,
  'unpatch-forgets': SINCE_6_1,
  'again-leaked': SINCE_6_12,
  'flags-kept': SINCE_6_1,
  'chunks-kept': SINCE_6_12,
  'room-of-a-page': SINCE_6_12,
  'module-kept-last': BEFORE_6_12,
  'module-kept-by-program': SINCE_6_12,
  'module-held-twice': SINCE_6_12,
};

/** All that `new Kernel(machine, { bugs })` knows: the manager's, and those of the functions that images call. */
export const KERNEL_BUGS: typeof MANAGER_BUGS & typeof RUNTIME_BUGS = { ...MANAGER_BUGS, ...RUNTIME_BUGS };

export type KernelBug = keyof typeof KERNEL_BUGS;
export type KernelBugs = ReadonlySet<KernelBug>;
export const NO_BUGS: KernelBugs = new Set();
