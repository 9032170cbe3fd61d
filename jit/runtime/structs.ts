/*
 * Kernel structures in guest memory, as far as emitted code and the manager touch them.
 * Offsets and sizes in bytes. struct bpf_prog is laid out as on a v5.15 kernel; the others hold the
 * fields that matter here at places of our own (docs/fidelity.md).
 */

/** struct bpf_prog. */
export const BpfProg = {
  /** struct bpf_prog_stats __percpu *stats: a per-CPU offset. */
  stats: 0x20,
  /** int __percpu *active: per-CPU recursion counter, a per-CPU offset. */
  active: 0x28,
  /** Address of the program's code. */
  bpfFunc: 0x30,
  /** Of a shim (cgroup-run.ts): address of the array of programs that it runs. */
  aux: 0x38,
  insnsi: 0x48,
  size: 0x48,
} as const;

/** struct bpf_prog_stats, one per CPU. */
export const BpfProgStats = {
  /** u64: runs, counted only while statistics are on. */
  cnt: 0,
  /** u64: time spent, nanoseconds, only while statistics are on. */
  nsecs: 8,
  /** u64: runs that the recursion counter refused. */
  misses: 16,
  /** u32: sequence count of u64_stats_sync; odd while an update is under way. */
  syncp: 24,
  size: 32,
  align: 16,
} as const;

/** struct bpf_tramp_image. */
export const BpfTrampImage = {
  /** Address of the code. */
  image: 0,
  /** struct percpu_ref. */
  pcref: 8,
  /** Address of the nop behind the call of the original; 0 without one. */
  ipAfterCall: 32,
  ipEpilogue: 40,
  size: 64,
} as const;

/** struct percpu_ref; the atomic part, which the kernel allocates apart, is inline. */
export const PercpuRef = {
  /** u64: per-CPU offset of the unsigned long counter, with the two flags below in its low bits. */
  percpuCountPtr: 0,
  /** s64: the count in atomic mode. */
  count: 8,
  /** u64: becomes 1 when the last reference is put; the kernel calls ->release there. */
  released: 16,
  size: 24,
  /** Flag: count atomically in `count`. */
  ATOMIC: 1,
  /** Flag: killed. */
  DEAD: 2,
} as const;

/** struct task_struct. */
export const TaskStruct = {
  /** u32: depth of rcu_read_lock. */
  rcuReadLockNesting: 0,
  /** u32: depth of rcu_read_lock_trace. */
  trcReaderNesting: 4,
  /** u32: depth of migrate_disable. */
  migrationDisabled: 8,
  /** struct bpf_run_ctx *: that of the tracing program that runs now; 0 outside of one (v6.1). */
  bpfCtx: 16,
  size: 64,
} as const;

/** struct bpf_tramp_run_ctx, in the frame of an image (v6.1). */
export const BpfTrampRunCtx = {
  /** u64: what bpf_get_attach_cookie answers. */
  bpfCookie: 0,
  /** Address of the run_ctx that was current before; 0 without one. */
  savedRunCtx: 8,
  size: 16,
} as const;
