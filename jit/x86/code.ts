import type { Kaddr } from '../../lib/index.ts';

/** One node of the provenance tree: a piece of an emitter, named after the kernel function that emits it. */
export interface Step {
  readonly name: string;
  /** What this instance is about, e.g. the program's name. */
  readonly about: string | undefined;
  readonly parent: Step | undefined;
}

/** The names from the outermost piece to this one: `fentry/invoke_bpf_prog/enter`. */
export function stepPath(step: Step): string {
  return step.parent === undefined ? step.name : `${stepPath(step.parent)}/${step.name}`;
}

/** The outermost piece that a step belongs to. */
export function outermostStep(step: Step): Step {
  return step.parent === undefined ? step : outermostStep(step.parent);
}

/** Where an instruction came from. Instructions stand in ascending offset, without gaps. */
export interface Insn {
  readonly offset: number;
  readonly step: Step;
  readonly note: string | undefined;
}

/**
 * pc32: 4 bytes, `S + A - P`. abs64: 8 bytes, `S + A`. abs32: 4 bytes, zero-extended by the CPU.
 * abs32s: 4 bytes, sign-extended by the CPU.
 */
export type RelocKind = 'pc32' | 'abs64' | 'abs32' | 'abs32s';

/** A field of the code that depends on an address. */
export interface Reloc {
  readonly offset: number;
  readonly kind: RelocKind;
  readonly symbol: string;
  readonly addend: number;
  /** The address already written there; undefined while `linkCode` still has to write it. */
  readonly target: Kaddr | undefined;
}

/** A place that is patched while the code is live. */
export interface PatchSite {
  readonly name: string;
  readonly offset: number;
  readonly sizeBytes: number;
  /** Where a jump patched in here goes, as an offset; undefined when that is not in this code. */
  readonly targetOffset: number | undefined;
}

/** A named range of the code. */
export interface CodeSymbol {
  readonly name: string;
  readonly offset: number;
  readonly sizeBytes: number;
}

/** What an emitter made: bytes, and everything that is known of them. Offsets count from the first byte. */
export interface Code {
  readonly bytes: Uint8Array;
  readonly insns: readonly Insn[];
  readonly relocs: readonly Reloc[];
  readonly sites: readonly PatchSite[];
  readonly symbols: readonly CodeSymbol[];
}

/** The instruction that covers an offset, or undefined past the end. */
export function insnAt(code: Code, offset: number): Insn | undefined {
  const { insns } = code;
  if (offset < 0 || offset >= code.bytes.length) return undefined;
  let low = 0;
  let high = insns.length;
  while (high - low > 1) {
    const mid = (low + high) >>> 1;
    if ((insns[mid] as Insn).offset <= offset) low = mid;
    else high = mid;
  }
  return insns[low];
}
