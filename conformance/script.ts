import { encodeInsns } from '../jit/index.ts';
import { toHex } from '../lib/index.ts';
import { attachedBefore } from './attached.ts';
import type { Combination, KernelName, ProgramKind, ProgramSpec, Step } from './combination.ts';
import { recordBytes, recorderInsns, seesRet } from './recorder.ts';
import { callerOn, type StructOps, type Target } from './target.ts';

/*
 * The commands for a guest, one a line (guest/init.c reads them): first what is to be known of the kernel,
 * then each combination between `begin` and `end`. Answers carry tags: `s3` belongs to the fourth step.
 */

/** What images call. */
export const HELPERS: readonly string[] = [
  ...['', '_recur', '_sleepable', '_sleepable_recur', '_lsm_cgroup'].flatMap((suffix) => [
    `__bpf_prog_enter${suffix}`,
    `__bpf_prog_exit${suffix}`,
  ]),
  '__bpf_tramp_enter',
  '__bpf_tramp_exit',
];

const KERNEL_SYMBOLS: readonly string[] = [
  ...HELPERS,
  // data
  'x86_return_thunk',
  'boot_cpu_data',
  'pcpu_hot',
  // what returns where calls are counted, and what a cgroup's hook runs
  'call_depth_return_thunk',
  '__cgroup_bpf_run_lsm_current',
  '__cgroup_bpf_run_lsm_socket',
  '__cgroup_bpf_run_lsm_sock',
];

/** Fields whose places in the kernel's structs are asked for. */
export const KERNEL_FIELDS = [
  ['bpf_prog', 'bpf_func'],
  ['bpf_prog', 'insnsi'],
  ['bpf_tramp_image', 'image'],
  ['bpf_tramp_image', 'size'],
  ['bpf_tramp_image', 'ksym'],
  ['bpf_tramp_image', 'ip_after_call'],
  ['bpf_tramp_image', 'ip_epilogue'],
  ['bpf_ksym', 'name'],
  ['cpuinfo_x86', 'x86_capability'],
  ['pcpu_hot', 'call_depth'],
] as const;

/** Of `boot_cpu_data`, enough for its capabilities, bytes. */
const CPU_DATA_BYTES = 512;
/** Longest image there can be, bytes. */
const IMAGE_BYTES = 4096;

/** What stands before a function may be a part of it. Kernel: CONFIG_FUNCTION_PADDING_BYTES */
const PADDING_BYTES = 16;
export const paddingTag = (name: string): string => `before-${name}`;

/** The whole script of a boot. */
export function guestScript(combinations: readonly Combination[], kernel: KernelName): string {
  const functions = [...new Set(combinations.map(({ target }) => target))].filter(isKernelFunction);
  const structs = combinations.filter(({ target }) => target.struct !== undefined);
  const members = structs.flatMap(({ target, programs }) => programs.map((spec) => memberName(target, spec)));
  const lists = structs.map(({ target }) => target.struct?.list ?? '');
  const head = [
    `symbols ${[...KERNEL_SYMBOLS, ...functions.map(({ fn }) => fn), ...new Set(lists)].join(' ')}`,
    ...KERNEL_FIELDS.map(([struct, field]) => `offset ${struct} ${field}`),
    ...HELPERS.map((name) => `memory ${paddingTag(name)} before:${PADDING_BYTES}:${name} ${PADDING_BYTES}`),
    `memory x86_return_thunk sym:x86_return_thunk 8`,
    `memory boot_cpu_data sym:boot_cpu_data ${CPU_DATA_BYTES}`,
    ...functions.map(({ fn }) => `model ${fn}`),
    ...[...new Set(members)].map((name) => `model ${name}`),
  ];
  const lines = [...head, ...combinations.flatMap((combination) => combinationLines(combination, kernel))];
  return `${lines.join('\n')}\n`;
}

const isKernelFunction = ({ made, struct }: Target): boolean => made === undefined && struct === undefined;

/** `struct.member`: what a struct_ops program is for. */
export const memberName = ({ struct }: Target, { member }: ProgramSpec): string =>
  `${struct?.type ?? ''}.${member ?? ''}`;
/** Tag of a member's image. */
export const memberTag = (step: number, { member }: ProgramSpec): string =>
  `${stepTag(step)}-${member ?? ''}`;

/** Name of a program, and the tag of a step's answers. */
export const programName = (program: number): string => `p${program}`;
export const stepTag = (step: number): string => `s${step}`;
const linkName = (step: number): string => `l${step}`;

function combinationLines(combination: Combination, kernel: KernelName): string[] {
  const { name, target, programs, steps } = combination;
  const caller = callerOn(target, kernel);
  return [
    `begin ${name}`,
    ...(target.made?.commands ?? []),
    `map record type=${MAP_TYPE_ARRAY} key=4 value=${recordBytes(programs.length)} entries=1`,
    ...(target.recurse === undefined
      ? []
      : [`map ${target.recurse} type=${MAP_TYPE_ARRAY} key=4 value=8 entries=1`]),
    ...(hasShim(combination) ? [OPEN_CGROUP] : []),
    ...caller.prepare,
    ...programs.map((spec, slot) => programLine(target, spec, slot)),
    ...steps.flatMap((_, step) => stepLines(combination, kernel, step)),
    ...programs.map((_, slot) => `info ${programName(slot)} ${programName(slot)}`),
    'end',
  ];
}

/** The program that stands for those of a cgroup is taken off some time after the last of them. */
const hasShim = ({ programs }: Combination): boolean => programs.some(({ kind }) => kind === 'lsm_cgroup');

// Kernel: include/uapi/linux/bpf.h
const MAP_TYPE_ARRAY = 2;
const PROG_TYPE = { tracing: 26, struct_ops: 27, ext: 28, lsm: 29 } as const;
const F_SLEEPABLE = 16;
const KIND: Readonly<Record<ProgramKind, { readonly type: number; readonly attach: number }>> = {
  fentry: { type: PROG_TYPE.tracing, attach: 24 },
  fexit: { type: PROG_TYPE.tracing, attach: 25 },
  fmod_ret: { type: PROG_TYPE.tracing, attach: 26 },
  lsm: { type: PROG_TYPE.lsm, attach: 27 },
  lsm_cgroup: { type: PROG_TYPE.lsm, attach: 43 },
  freplace: { type: PROG_TYPE.ext, attach: 0 },
  // which member it is takes the place of an attach type
  struct_ops: { type: PROG_TYPE.struct_ops, attach: 0 },
};

/** openat(AT_FDCWD, "/cgroup", O_DIRECTORY): the root of the tree that the guest mounts. */
const OPEN_CGROUP = 'open cgroup 257 -100 text:/cgroup 0x10000';

function programLine(target: Target, spec: ProgramSpec, slot: number): string {
  const { type, attach } = KIND[spec.kind];
  const shape = { words: target.args, hasRet: seesRet(spec.kind, target.retBits) };
  const insns = toHex(encodeInsns(recorderInsns(spec, slot, shape)));
  const maps = target.recurse === undefined ? 'record' : `record,${target.recurse}`;
  return [
    `prog ${programName(slot)} type=${type} attach=${attach} flags=${spec.sleepable === true ? F_SLEEPABLE : 0}`,
    target.struct === undefined ? target.attachTo : `ops=${target.struct.type} member=${spec.member}`,
    ...(spec.kind === 'freplace' ? [target.made?.freplaceWords ?? ''] : []),
    `maps=${maps} insns=${insns}`,
  ].join(' ');
}

function stepLines(combination: Combination, kernel: KernelName, at: number): string[] {
  const { target, programs, steps } = combination;
  const step = steps[at] as Step;
  const tag = stepTag(at);
  const caller = callerOn(target, kernel);
  const record = `record ${tag} record ${recordBytes(programs.length)}`;
  switch (step.do) {
    case 'attach': {
      const { kind, cookie } = programs[step.program] as ProgramSpec;
      const words = [`link ${linkName(at)} ${programName(step.program)} attach=${KIND[kind].attach}`];
      if (cookie !== undefined) words.push(`cookie=0x${cookie.toString(16)}`);
      if (kind === 'lsm_cgroup') words.push('target=cgroup');
      return [words.join(' ')];
    }
    case 'detach': {
      const attached = latest(steps, at, (other) => other.do === 'attach' && other.program === step.program);
      const close = `close ${linkName(attached)}`;
      return hasShim(combination) && attachedBefore(combination, at + 1).length === 0
        ? [close, `settle ${target.where}`]
        : [close];
    }
    case 'register':
    case 'unregister':
      return structLine(step.do, target, programs);
    case 'look':
      if (target.struct !== undefined) return lookAtMembers(tag, target.struct, programs);
      return [`site ${tag} ${target.where}`, `image ${tag} ${target.where}`];
    case 'lookAgain':
      return [
        `memory ${tag} image:${stepTag(latest(steps, at, (other) => other.do === 'look'))} ${IMAGE_BYTES}`,
      ];
    case 'call':
      return [...caller.call(tag), record];
    case 'park':
      return [...(caller.park?.('parked') ?? [])];
    case 'wake':
      return [...(caller.wake?.('parked') ?? []), record];
  }
}

function structLine(
  verb: 'register' | 'unregister',
  { struct }: Target,
  programs: readonly ProgramSpec[],
): string[] {
  if (struct === undefined) return [];
  if (verb === 'unregister') return ['unregister ops'];
  const filled = programs.map(({ member }, slot) => `${member}=${programName(slot)}`);
  return [`register ops ${struct.type} ${struct.name} types ${filled.join(' ')}`];
}

function lookAtMembers(tag: string, struct: StructOps, programs: readonly ProgramSpec[]): string[] {
  const fields = programs.map(({ member }) => member);
  return [`members ${tag} ${struct.list} ${struct.type} ${struct.name} ${fields.join(' ')}`];
}

/** The last step before `at` that is wanted. */
export function latest(steps: readonly Step[], at: number, wanted: (step: Step) => boolean): number {
  return steps.slice(0, at).findLastIndex(wanted);
}
