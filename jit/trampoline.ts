import { Errno, InputError } from '../lib/index.ts';
import { TrampFlag, type TrampolineRequest } from './request.ts';
import type { Emission, Revision, RevisionName } from './rev/revision.ts';
import { v5_13 } from './rev/v5-13.ts';
import { v5_15 } from './rev/v5-15.ts';
import { Assembler } from './x86/assembler.ts';
import type { Code } from './x86/code.ts';
import { OutOfRange } from './x86/rm.ts';

/** An image that came out, or the errno that did. */
export type Prepared = TrampolineImage | RefusedImage;

export interface TrampolineImage {
  /** The kernel function's return value: the length in bytes. */
  readonly ret: number;
  readonly bytes: Uint8Array;
  /** Offset of the nop behind the call of the original; null without that call. */
  readonly ipAfterCall: number | null;
  /** Offset where a retired image goes on; null without that call. */
  readonly ipEpilogue: number | null;
  /** Provenance, relocations, sites; only when asked for. */
  readonly code: Code | undefined;
}

export interface RefusedImage {
  /** Negative errno. */
  readonly ret: number;
  readonly bytes?: never;
  /** The reason in words. */
  readonly why: string;
}

/** The emitters by name. */
export const revisions: Readonly<Record<RevisionName, Revision>> = { 'v5.13': v5_13, 'v5.15': v5_15 };

/** Bytes at the end of the room that must stay free. Kernel: BPF_INSN_SAFETY. */
const SAFETY = 64;

// One image at a time is emitted, so all share their scratch memory.
const scratch = new Uint8Array(16384);

/**
 * Emits one trampoline image, byte for byte as the kernel of that revision does.
 * Pure: nothing but the request decides the bytes, and the room behind `request.image` is not touched.
 *
 * @param revision a kernel revision by name, or an emitter of one's own: a revision with pieces replaced.
 * @param options.provenance also give steps, notes and relocations (slower; default false).
 * @throws InputError for a request that no kernel would see: an argument of 3 bytes, a missing helper address.
 *
 * Kernel: arch_prepare_bpf_trampoline, arch/x86/net/bpf_jit_comp.c
 */
export function prepareTrampoline(
  revision: RevisionName | Revision,
  request: TrampolineRequest,
  options: { readonly provenance?: boolean } = {},
): Prepared {
  const rev = typeof revision === 'string' ? revisions[revision] : revision;
  const flags = request.flags & rev.knownFlags;
  const refusal = rev.refuse(request, flags);
  if (refusal !== undefined) return { ret: -Errno[refusal.code], why: refusal.why };
  for (const size of request.argSizes) {
    if (size !== 1 && size !== 2 && size !== 4 && size !== 8) {
      throw new InputError('argSizes', undefined, `an argument of ${size} bytes; only 1, 2, 4 and 8 exist`);
    }
  }

  const record = options.provenance ?? false;
  const asm = new Assembler(request.image, { record, buffer: scratch });
  const emission: Emission = {
    asm,
    rev,
    request,
    flags,
    frame: rev.frame(request, flags),
    doFexit: asm.label('do_fexit'),
    ipAfterCall: undefined,
    ipEpilogue: undefined,
  };
  try {
    emitTrampoline(emission);
  } catch (error) {
    if (error instanceof OutOfRange) return { ret: -Errno.EINVAL, why: error.message };
    throw error;
  }
  const length = asm.offset;
  const room = request.imageSize - SAFETY;
  if (length > room) return { ret: -Errno.EFAULT, why: `${length} bytes; the room takes ${room}` };
  const code = record ? asm.finish() : undefined;
  return {
    ret: length,
    bytes: code?.bytes ?? asm.bytes(),
    ipAfterCall: emission.ipAfterCall ?? null,
    ipEpilogue: emission.ipEpilogue ?? null,
    code,
  };
}

/** The order of pieces: the same in every revision. */
function emitTrampoline(emission: Emission): void {
  const { rev, flags, request } = emission;
  const callOriginal = (flags & TrampFlag.CALL_ORIG) !== 0;
  const restoreRegs = (flags & TrampFlag.RESTORE_REGS) !== 0;
  const modifiesReturn = request.fmodRet.length > 0;

  rev.prologue(emission);
  rev.funcIp(emission);
  rev.saveArgs(emission);
  if (callOriginal) rev.trampEnter(emission);
  rev.fentry(emission);
  if (modifiesReturn) rev.fmodRet(emission);
  if (callOriginal) rev.callOriginal(emission);
  if (modifiesReturn) rev.bindFexit(emission);
  rev.fexit(emission);
  if (restoreRegs) rev.restoreArgs(emission);
  if (callOriginal) rev.trampExit(emission);
  rev.epilogue(emission);
}
