import {
  decidePoke,
  disassemble,
  ENDBR_BYTES,
  HelperPair,
  isEndbr,
  NOP5,
  type PokeType,
  type Prepared,
  type ProgRef,
  patchBytes,
  prepareTrampoline,
  type RevisionName,
  TrampFlag,
  type TrampolineImage,
  type TrampolineRequest,
} from '../jit/index.ts';
import { addrAdd, hex64, type Kaddr, kaddr, toHex } from '../lib/index.ts';
import type { CombinationAnswers, Dump, KernelModel, Site } from './answers.ts';
import { attachedBefore, changedBetween, type List, listOf } from './attached.ts';
import type { Combination, ProgramSpec } from './combination.ts';
import { type KernelFacts, readU64 } from './kernel-facts.ts';
import { latest, memberName, memberTag, programName, stepTag } from './script.ts';

/*
 * Compares the bytes of a kernel with ours: at every look of a combination, the trace site and the image
 * behind it.
 *
 * Nothing is known beforehand but which programs are attached. Addresses come from the dump, and what an
 * address is, from what stands there: a struct bpf_prog holds its program's entry, a struct bpf_tramp_image
 * its image's address. From these, from the kernel's symbols and from its build, our emitter makes the
 * image, which has to be the kernel's, byte for byte.
 */

/** What came of the looks of a combination. */
export interface BytesVerdict {
  readonly equal: boolean;
  /** Images that were compared. */
  readonly images: number;
  /** Length of the last one that the kernel made, bytes, found by decoding it; null when there was none. */
  readonly length: number | null;
  /** The first difference. */
  readonly why: string | undefined;
}

interface Setting {
  readonly combination: Combination;
  readonly revision: RevisionName;
  readonly facts: KernelFacts;
  /** The function's model in the kernel's types. */
  readonly model: KernelModel & { readonly id?: number };
  /** The models of a struct's members, by `struct.member`. */
  readonly models: ReadonlyMap<string, KernelModel>;
  readonly answers: CombinationAnswers;
}

/** Something that is not as it should be. */
class Difference extends Error {
  override readonly name: string = 'Difference';
}

export function compareBytes(setting: Setting): BytesVerdict {
  const { steps } = setting.combination;
  let images = 0;
  let length: number | null = null;
  let made: Looked | undefined;
  for (const [at, step] of steps.entries()) {
    try {
      if (step.do === 'look' && setting.combination.target.struct !== undefined) {
        for (const image of lookAtMembers(setting, at)) {
          images++;
          length = image.length;
        }
      } else if (step.do === 'look') {
        made = look(setting, at, made);
        if (made.image !== undefined) {
          images++;
          length = made.image.length;
        }
      }
      if (step.do === 'lookAgain') lookAgain(setting, at, made);
    } catch (error) {
      if (!(error instanceof Difference)) throw error;
      return { equal: false, images, length, why: `step ${at + 1}: ${error.message}` };
    }
  }
  return { equal: true, images, length, why: undefined };
}

interface Compared {
  readonly dump: Dump;
  readonly ours: TrampolineImage;
  /** Of the kernel's, bytes. */
  readonly length: number;
}

/** What a look found, all of it as expected. */
interface Looked {
  /** Bytes at the site. */
  readonly site: Uint8Array;
  /** Where the site leads. */
  readonly to: { readonly type: PokeType; readonly address: Kaddr } | undefined;
  readonly image:
    | { readonly dump: Dump; readonly ours: TrampolineImage; readonly length: number }
    | undefined;
}

function look(setting: Setting, at: number, before: Looked | undefined): Looked {
  const { combination, answers } = setting;
  const tag = stepTag(at);
  const site = found(answers.sites.get(tag), 'the guest did not look at the site');
  const dump = answers.images.get(tag) ?? undefined;
  const attached = attachedBefore(combination, at);
  const replacement = attached.find((program) => specOf(setting, program).kind === 'freplace');
  if (replacement !== undefined) {
    const { entry } = found(
      answers.infos.get(programName(replacement)),
      'nothing is known of the replacement',
    );
    const to = { type: 'JUMP', address: entry } as const;
    checkSite(setting, site, before, to);
    return { site: site.bytes, to, image: undefined };
  }
  if (attached.length === 0) {
    if (dump !== undefined) throw new Difference('nothing is attached, and the site still calls an image');
    checkSite(setting, site, before, undefined);
    return { site: site.bytes, to: undefined, image: undefined };
  }
  if (dump === undefined) throw new Difference('the site calls no image');
  const to = { type: 'CALL', address: dump.address } as const;
  checkSite(setting, site, before, to);
  const { ours, im } = emitAsKernel(setting, site, dump, attached);
  const length = lengthOf(dump);
  checkSame(dump.bytes.subarray(0, length), ours.bytes);
  checkStruct(setting, dump, ours, im);
  return { site: site.bytes, to, image: { dump, ours, length } };
}

/** The site holds what a text poke makes of what it held at the look before; at the first look, of a nop. */
function checkSite(setting: Setting, site: Site, before: Looked | undefined, to: Looked['to']): void {
  const { revision, facts } = setting;
  const ibt = facts.config.ibt === true;
  const oldAddr = before?.to?.address ?? null;
  const newAddr = to?.address ?? null;
  const type = to?.type ?? before?.to?.type ?? 'CALL';
  const prior = Uint8Array.from(before?.site ?? site.bytes);
  if (before === undefined) prior.set(NOP5, ibt && isEndbr(prior) ? ENDBR_BYTES : 0);
  const request = { ip: site.address, type, oldAddr, newAddr, isText: true, ibt };
  const { ret, write, offset } = decidePoke(revision, request, prior);
  if (ret < 0) throw new Difference(`our rule refuses to patch the site: ${ret}`);
  const after = Uint8Array.from(prior);
  after.set(write ?? [], offset);
  if (toHex(after) !== toHex(site.bytes)) {
    throw new Difference(`the site holds ${toHex(site.bytes)}, and should hold ${toHex(after)}`);
  }
}

function emitAsKernel(
  setting: Setting,
  site: Site,
  dump: Dump,
  attached: readonly number[],
): { ours: TrampolineImage; im: Kaddr | undefined } {
  const { combination, revision, facts, model } = setting;
  const { target } = combination;
  const lists = programLists(setting, dump, attached);
  const callsOriginal = lists.fmodRet.length + lists.fexit.length > 0;
  const im = findIm(setting, dump);
  if (callsOriginal && im === undefined) throw new Difference('the image names no struct bpf_tramp_image');
  const asksIp = attached.some((program) => specOf(setting, program).funcIp === true);
  const request: TrampolineRequest = {
    image: dump.address,
    imageSize: imageSize(setting, dump, im),
    im: im ?? kaddr(0),
    origCall: site.address,
    argSizes: model.args.map(({ size }) => size),
    retSize: model.ret,
    flags:
      (callsOriginal ? TrampFlag.CALL_ORIG | TrampFlag.SKIP_FRAME : TrampFlag.RESTORE_REGS) |
      (asksIp ? TrampFlag.IP_ARG : 0) |
      (target.tailCalls === true ? TrampFlag.TAIL_CALL_CTX : 0),
    ...lists,
    helpers: facts.helpers,
    config: { ...facts.config, origCallStartsWithEndbr: isEndbr(site.bytes) },
    name: target.fn,
  };
  const ours: Prepared = prepareTrampoline(revision, request);
  if (ours.bytes === undefined) throw new Difference(`our emitter refuses it: ${ours.why}`);
  return { ours, im };
}

/**
 * The images behind a struct's members, one for each program. They call nothing but their program, and stand
 * one behind the other, in the order of the members.
 * Kernel: bpf_struct_ops_prepare_trampoline, kernel/bpf/bpf_struct_ops.c
 */
function* lookAtMembers(setting: Setting, at: number): Generator<Compared> {
  const { combination, revision, facts, answers, models } = setting;
  const made: Compared[] = [];
  for (const [program, spec] of combination.programs.entries()) {
    const name = memberName(combination.target, spec);
    const dump = found(answers.images.get(memberTag(at, spec)) ?? undefined, `nothing is behind ${name}`);
    const model = found(models.get(name), `the kernel has no type of ${name}`);
    const ours = prepareTrampoline(revision, {
      image: dump.address,
      imageSize: PAGE,
      im: kaddr(0),
      origCall: kaddr(0),
      argSizes: model.args.map(({ size }) => size),
      retSize: model.ret,
      // what comes before v6.12 does not know INDIRECT
      flags: TrampFlag.INDIRECT | (model.ret > 0 ? TrampFlag.RET_FENTRY_RET : 0),
      fentry: [progRef(setting, dump, program)],
      fmodRet: [],
      fexit: [],
      helpers: facts.helpers,
      config: facts.config,
      name,
    });
    if (ours.bytes === undefined) throw new Difference(`our emitter refuses ${name}: ${ours.why}`);
    const length = lengthOf(dump);
    checkSame(dump.bytes.subarray(0, length), ours.bytes);
    const compared = { dump, ours, length };
    made.push(compared);
    yield compared;
  }
  const inOrder = made.sort((a, b) => (a.dump.address < b.dump.address ? -1 : 1));
  for (const [i, { dump, ours }] of inOrder.entries()) {
    const next = inOrder[i + 1]?.dump.address;
    const expected = addrAdd(dump.address, ours.ret);
    if (next !== undefined && next !== expected) {
      throw new Difference(`an image stands at ${hex64(next)}, and should at ${hex64(expected)}`);
    }
  }
}

/** Each list as the kernel keeps it: the newest program first. */
function programLists(setting: Setting, dump: Dump, attached: readonly number[]): Record<List, ProgRef[]> {
  const lists: Record<List, ProgRef[]> = { fentry: [], fmodRet: [], fexit: [] };
  let shim = false;
  for (const program of attached) {
    const spec = specOf(setting, program);
    const list = listOf(spec.kind, setting.combination.target.retBits);
    // All of a cgroup's programs are behind one that stands for them.
    if (list === 'replace' || (spec.kind === 'lsm_cgroup' && shim)) continue;
    shim ||= spec.kind === 'lsm_cgroup';
    lists[list].unshift(
      spec.kind === 'lsm_cgroup' ? shimRef(setting, dump) : progRef(setting, dump, program),
    );
  }
  return lists;
}

function progRef(setting: Setting, dump: Dump, program: number): ProgRef {
  const { answers, facts } = setting;
  const spec = specOf(setting, program);
  const name = programName(program);
  const { entry } = found(answers.infos.get(name), `nothing is known of program ${name}`);
  const bpfFunc = found(facts.offset('bpf_prog.bpf_func'), 'the kernel did not tell where bpf_func is');
  const [address] = [...dump.pointees].find(([, bytes]) => readU64(bytes, bpfFunc) === entry) ?? [];
  if (address === undefined) throw new Difference(`the image names no struct bpf_prog of program ${name}`);
  return {
    prog: address,
    bpfFunc: entry,
    insnsi: addrAdd(address, facts.offset('bpf_prog.insnsi') ?? 0),
    sleepable: spec.sleepable === true,
    jited: true,
    kind: spec.kind === 'lsm' || spec.kind === 'struct_ops' ? HelperPair.PLAIN : HelperPair.RECUR,
    cookie: spec.cookie ?? 0n,
    name,
  };
}

/** The program that stands for a cgroup's: the kernel makes it itself, and it is not jited. */
function shimRef({ facts }: Setting, dump: Dump): ProgRef {
  const bpfFunc = found(facts.offset('bpf_prog.bpf_func'), 'the kernel did not tell where bpf_func is');
  for (const [address, bytes] of dump.pointees) {
    const runner = kaddr(readU64(bytes, bpfFunc));
    if (!facts.cgroupRunners.has(runner)) continue;
    return {
      prog: address,
      bpfFunc: runner,
      insnsi: addrAdd(address, facts.offset('bpf_prog.insnsi') ?? 0),
      sleepable: false,
      jited: false,
      kind: HelperPair.PLAIN,
      name: 'cgroup shim',
    };
  }
  throw new Difference("the image names no program that stands for the cgroup's");
}

function findIm({ facts }: Setting, dump: Dump): Kaddr | undefined {
  const image = found(facts.offset('bpf_tramp_image.image'), 'the kernel did not tell where image is');
  return [...dump.pointees].find(([, bytes]) => readU64(bytes, image) === dump.address)?.[0];
}

/** Room for an image where the kernel does not keep its size. Kernel: PAGE_SIZE */
const PAGE = 4096;

function imageSize({ facts }: Setting, dump: Dump, im: Kaddr | undefined): number {
  const size = facts.offset('bpf_tramp_image.size');
  const struct = im === undefined ? undefined : dump.pointees.get(im);
  return size === undefined || struct === undefined ? PAGE : Number(readU64(struct, size) & 0xffff_ffffn);
}

/** What the kernel keeps of an image besides its bytes. */
function checkStruct(setting: Setting, dump: Dump, ours: TrampolineImage, im: Kaddr | undefined): void {
  const { facts, model } = setting;
  const struct = im === undefined ? undefined : dump.pointees.get(im);
  if (struct === undefined) return;
  for (const [field, offset] of [
    ['ip_after_call', ours.ipAfterCall],
    ['ip_epilogue', ours.ipEpilogue],
  ] as const) {
    const at = facts.offset(`bpf_tramp_image.${field}`);
    const value = at === undefined ? undefined : readU64(struct, at);
    const expected = offset === null ? 0n : addrAdd(dump.address, offset);
    if (value !== undefined && value !== expected) {
      throw new Difference(`${field} is ${hex64(value)}, ours ${hex64(expected)}`);
    }
  }
  const size = facts.offset('bpf_tramp_image.size');
  if (size !== undefined && imageSize(setting, dump, im) !== ours.ret) {
    throw new Difference(
      `the kernel keeps ${imageSize(setting, dump, im)} bytes for it, ours takes ${ours.ret}`,
    );
  }
  if (model.id !== undefined) checkName(facts, struct, model.id);
}

/** Kernel: bpf_trampoline_compute_key; the kernel's own BTF is number 1. */
function checkName(facts: KernelFacts, struct: Uint8Array, btfId: number): void {
  const ksym = facts.offset('bpf_tramp_image.ksym');
  const name = facts.offset('bpf_ksym.name');
  if (ksym === undefined || name === undefined) return;
  const text = new TextDecoder().decode(struct.subarray(ksym + name));
  const symbol = text.slice(0, text.indexOf('\0'));
  const expected = `bpf_trampoline_${(1n << 32n) | 0x8000_0000n | BigInt(btfId)}`;
  if (symbol !== expected) throw new Difference(`its symbol is ${symbol}, and should be ${expected}`);
}

/** Bytes of an image up to its end, found by decoding: a return, or a jump out of it. */
function lengthOf(dump: Dump): number {
  for (let limit = 512; ; limit *= 2) {
    const bytes = dump.bytes.subarray(0, limit);
    for (const { offset, sizeBytes, mnemonic, target } of disassemble(bytes, dump.address)) {
      const end = offset + sizeBytes;
      if (mnemonic === 'ret') return bytes[end] === INT3 ? end + 1 : end;
      const inside = target !== undefined && target >= dump.address && target < addrAdd(dump.address, PAGE);
      if (mnemonic === 'jmp' && !inside && end + BRANCH_BYTES <= limit) return end;
    }
    if (limit >= dump.bytes.length) throw new Difference('the image has no end');
  }
}

const INT3 = 0xcc;
/** The longest branch: one at the end of what was decoded may be cut off. */
const BRANCH_BYTES = 6;

/** The image of the last look, which the sleeping task will return to. */
function lookAgain(setting: Setting, at: number, made: Looked | undefined): void {
  const { steps } = setting.combination;
  const now = found(setting.answers.memory.get(stepTag(at)), 'the guest did not look again');
  const image = found(made?.image, 'there was no image to look at again');
  const expected = image.ours.bytes.slice();
  const { ipAfterCall, ipEpilogue } = image.ours;
  const before = latest(steps, at, (step) => step.do === 'look');
  // A retired image skips what is left of its programs.
  if (changedBetween(steps, before, at) && ipAfterCall !== null && ipEpilogue !== null) {
    const jump = patchBytes('JUMP', addrAdd(now.address, ipAfterCall), addrAdd(now.address, ipEpilogue));
    expected.set(jump ?? [], ipAfterCall);
  }
  checkSame(now.bytes.subarray(0, expected.length), expected);
}

function checkSame(theirs: Uint8Array, ours: Uint8Array): void {
  const at = ours.findIndex((byte, i) => byte !== theirs[i]);
  if (at < 0 && theirs.length === ours.length) return;
  if (at < 0) throw new Difference(`the kernel's image has ${theirs.length} bytes, ours ${ours.length}`);
  const part = (bytes: Uint8Array): string => toHex(bytes.subarray(at, at + 8));
  throw new Difference(`at offset ${at} the kernel has ${part(theirs)}, ours ${part(ours)}`);
}

const specOf = ({ combination }: Setting, program: number): ProgramSpec =>
  combination.programs[program] as ProgramSpec;

function found<T>(value: T | undefined, otherwise: string): T {
  if (value === undefined) throw new Difference(otherwise);
  return value;
}
