import type { CombinationAnswers, Dump } from '../../conformance/answers.ts';
import { attachedBefore, listOf } from '../../conformance/attached.ts';
import type { Combination, KernelName } from '../../conformance/combination.ts';
import type { KernelFacts } from '../../conformance/kernel-facts.ts';
import { programName, stepTag } from '../../conformance/script.ts';
import {
  HelperPair,
  isEndbr,
  type ProgRef,
  patchBytes,
  prepareTrampoline,
  TrampFlag,
  type TrampolineImage,
} from '../../jit/index.ts';
import { addrAdd, Bug, fromHex, type Kaddr, kaddr } from '../../lib/index.ts';

/*
 * A kernel that is not one, for tests of the comparison: it keeps the same structs and answers the same
 * questions, and its images are ours.
 */

const BPF_FUNC = 48;
const INSNSI = 72;
const IMAGE_SIZE = 8;
const KSYM = 16;
const IP_AFTER_CALL = 632;
const IP_EPILOGUE = 640;
const STRUCT_BYTES = 1024;

export const FUNCTION: Kaddr = kaddr(0xffff_ffff_8180_0000n);
export const IMAGE: Kaddr = kaddr(0xffff_ffff_c020_1000n);
const IM: Kaddr = kaddr(0xffff_8880_0400_0000n);
const RUNNER: Kaddr = kaddr(0xffff_ffff_8120_0000n);
const BTF_ID = 77;

/** Where program `n` is: its struct, and its code. */
const progAt = (n: number): Kaddr => kaddr(0xffff_c900_0010_0000n + BigInt(0x1000 * n));
const codeAt = (n: number): Kaddr => kaddr(0xffff_ffff_c000_0000n + BigInt(0x100 * n));
/** Number of the program that stands for a cgroup's. */
const SHIM = 90;

export function facts(kernel: KernelName): KernelFacts {
  const names = ['', '_recur', '_sleepable', '_sleepable_recur', '_lsm_cgroup'].flatMap((suffix) => [
    `__bpf_prog_enter${suffix}`,
    `__bpf_prog_exit${suffix}`,
  ]);
  const helpers = [...names, '__bpf_tramp_enter', '__bpf_tramp_exit'];
  const offsets: Readonly<Record<string, number>> = {
    'bpf_prog.bpf_func': BPF_FUNC,
    'bpf_prog.insnsi': INSNSI,
    'bpf_tramp_image.image': 0,
    ...(kernel === '6.12' ? { 'bpf_tramp_image.size': IMAGE_SIZE } : {}),
    'bpf_tramp_image.ksym': KSYM,
    'bpf_tramp_image.ip_after_call': IP_AFTER_CALL,
    'bpf_tramp_image.ip_epilogue': IP_EPILOGUE,
    'bpf_ksym.name': 16,
  };
  return {
    config: { ibt: kernel === '6.12', sls: true, rethunk: false },
    helpers: Object.fromEntries(helpers.map((name, i) => [name, addrAdd(FUNCTION, -0x1000 - 16 * i)])),
    cgroupRunners: new Set([RUNNER]),
    offset: (field) => offsets[field],
  };
}

export const MODEL = {
  id: BTF_ID,
  args: [
    { size: 4, struct: false },
    { size: 8, struct: false },
  ],
  ret: 4,
};

/** What this kernel says of a combination on `int f(int, u64)`. */
export function answersOf(combination: Combination, kernel: KernelName): CombinationAnswers {
  const answers: CombinationAnswers = {
    sites: new Map(),
    images: new Map(),
    memory: new Map(),
    records: new Map(),
    calls: new Map(),
    links: new Map(),
    infos: new Map(),
    error: undefined,
    log: undefined,
  };
  let retired: Uint8Array = new Uint8Array();
  for (const [at, step] of combination.steps.entries()) {
    const attached = attachedBefore(combination, at);
    const made = attached.length === 0 ? undefined : image(combination, kernel, attached);
    if (step.do === 'look') {
      answers.sites.set(stepTag(at), { address: FUNCTION, bytes: site(kernel, made && IMAGE) });
      answers.images.set(stepTag(at), made === undefined ? null : dump(combination, attached, made));
      retired = (made?.bytes ?? retired).slice();
      const { ipAfterCall = null, ipEpilogue = null } = made ?? {};
      if (ipAfterCall !== null && ipEpilogue !== null) {
        const jump = patchBytes('JUMP', addrAdd(IMAGE, ipAfterCall), addrAdd(IMAGE, ipEpilogue));
        retired.set(jump ?? [], ipAfterCall);
      }
    }
    if (step.do === 'lookAgain') answers.memory.set(stepTag(at), { address: IMAGE, bytes: retired });
  }
  for (const [n] of combination.programs.entries()) {
    answers.infos.set(programName(n), { entry: codeAt(n), runs: 0n, misses: 0n });
  }
  return answers;
}

function site(kernel: KernelName, to: Kaddr | undefined): Uint8Array {
  const endbr = kernel === '6.12' ? (fromHex('660f1f00') as Uint8Array) : new Uint8Array();
  const insn = patchBytes('CALL', addrAdd(FUNCTION, endbr.length), to ?? null) as Uint8Array;
  return Buffer.concat([endbr, insn, Buffer.from('4883ec1831c0c3909090cc', 'hex')]).subarray(0, 16);
}

function image(combination: Combination, kernel: KernelName, attached: readonly number[]): TrampolineImage {
  const lists = { fentry: [] as ProgRef[], fmodRet: [] as ProgRef[], fexit: [] as ProgRef[] };
  for (const n of attached) {
    const spec = combination.programs[n];
    if (spec === undefined) throw new Bug('no such program');
    const list = listOf(spec.kind, 32);
    if (list === 'replace') throw new Bug('nothing is replaced here');
    const shim = spec.kind === 'lsm_cgroup';
    lists[list].unshift({
      prog: progAt(shim ? SHIM : n),
      bpfFunc: shim ? RUNNER : codeAt(n),
      insnsi: addrAdd(progAt(shim ? SHIM : n), INSNSI),
      sleepable: spec.sleepable === true,
      jited: !shim,
      kind: spec.kind.startsWith('lsm') ? HelperPair.PLAIN : HelperPair.RECUR,
      cookie: spec.cookie ?? 0n,
    });
  }
  const callsOriginal = lists.fmodRet.length + lists.fexit.length > 0;
  const { config, helpers } = facts(kernel);
  const made = prepareTrampoline(`v${kernel}`, {
    image: IMAGE,
    imageSize: 4096,
    im: callsOriginal ? IM : kaddr(0),
    origCall: FUNCTION,
    argSizes: MODEL.args.map(({ size }) => size),
    flags: callsOriginal ? TrampFlag.CALL_ORIG | TrampFlag.SKIP_FRAME : TrampFlag.RESTORE_REGS,
    ...lists,
    helpers,
    config: { ...config, origCallStartsWithEndbr: isEndbr(site(kernel, undefined)) },
  });
  if (made.bytes === undefined) throw new Bug(made.why);
  return made;
}

function dump({ programs }: Combination, attached: readonly number[], made: TrampolineImage): Dump {
  const bytes = new Uint8Array(4096).fill(0xcc);
  bytes.set(made.bytes);
  const pointees = new Map<Kaddr, Uint8Array>();
  const prog = (n: number, code: Kaddr): void => {
    pointees.set(progAt(n), struct(128, [BPF_FUNC, code]));
  };
  for (const n of attached) {
    if (programs[n]?.kind === 'lsm_cgroup') prog(SHIM, RUNNER);
    else prog(n, codeAt(n));
  }
  if (made.ipAfterCall !== null && made.ipEpilogue !== null) {
    const im = struct(
      STRUCT_BYTES,
      [0, IMAGE],
      [IMAGE_SIZE, BigInt(made.ret)],
      [IP_AFTER_CALL, addrAdd(IMAGE, made.ipAfterCall)],
      [IP_EPILOGUE, addrAdd(IMAGE, made.ipEpilogue)],
    );
    im.set(Buffer.from(`bpf_trampoline_${(1n << 32n) | 0x8000_0000n | BigInt(BTF_ID)}`), KSYM + 16);
    pointees.set(IM, im);
  }
  return { address: IMAGE, bytes, pointees };
}

function struct(
  sizeBytes: number,
  ...words: readonly (readonly [offset: number, value: bigint])[]
): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  const view = new DataView(bytes.buffer);
  for (const [offset, value] of words) view.setBigUint64(offset, value, true);
  return bytes;
}
