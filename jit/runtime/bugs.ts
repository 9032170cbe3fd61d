/**
 * Mistakes that the functions an image calls can have, to be switched on one by one: each is an `if` of the
 * emitting code beside what it leaves out, so that a right runtime holds no trace of them. Identifiers that
 * begin with L as in the list of real bugs.
 */
export const RUNTIME_BUGS = {
  L12: 'sleepable programs run with migration enabled',
  L13: 'no recursion counter: a program that is entered again runs again',
  L14: 'programs that may run inside of themselves are counted: LSM programs lose runs',
  L15: 'enter makes run_ctx current only when it lets the program run, and exit puts back what enter never saved',
  L16: 'exit does nothing when enter refused the run',
  L17: 'sleepable programs are entered where faulting is not allowed, and nothing says so',
  'migrate-enabled': 'programs that do not sleep run with migration enabled',
  'migrate-left-disabled': 'exit of a sleepable program leaves migration disabled',
  'no-rcu-read-lock': 'programs that do not sleep run outside of rcu_read_lock',
  'no-trace-read-lock': 'sleepable programs run outside of rcu_read_lock_trace',
  'sleepable-in-rcu': 'sleepable programs run inside rcu_read_lock in place of rcu_read_lock_trace',
  'rcu-left-locked': 'exit does not leave rcu_read_lock',
  'active-left-up': 'exit does not count the run down',
  'active-down-twice': 'exit counts the run down twice',
  'miss-uncounted': 'a refused run is not counted as a miss',
  'miss-counted-twice': 'a refused run is counted twice',
  'stats-lost': 'exit counts no run while statistics are on',
  'stats-untimed': 'exit counts a run that began while statistics were off',
  'stats-sequence-odd': 'the sequence of the statistics stays odd after an update',
  'time-zero': 'a clock that shows 0 is taken for: do not run',
  'run-ctx-not-current': 'enter does not make run_ctx current',
  'run-ctx-kept': 'exit does not put back the run_ctx that was current before',
  'ref-not-taken': '__bpf_tramp_enter takes no reference',
  'ref-not-put': '__bpf_tramp_exit puts no reference',
  'ref-put-twice': '__bpf_tramp_exit puts its reference twice',
  'ref-put-percpu': '__bpf_tramp_exit counts on its CPU even when the reference is killed',
  'ref-release-lost': 'the last put does not release',
} as const;

export type RuntimeBug = keyof typeof RUNTIME_BUGS;
