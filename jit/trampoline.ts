import { Errno, type ErrnoName, InputError, type Kaddr } from '../lib/index.ts';
import { TrampFlag, type TrampolineConfig, type TrampolineRequest } from './request.ts';
import type { Emission, Revision, RevisionName } from './rev/revision.ts';
import { revisions } from './rev/revisions.ts';
import { Assembler } from './x86/assembler.ts';
import type { Code } from './x86/code.ts';
import { OutOfRange } from './x86/rm.ts';

/** An image that came out, or the errno that did. */
export type Prepared = TrampolineImage | RefusedImage;

export interface TrampolineImage {
  /** The kernel function's return value: the length in bytes, in v6.12 and 64 more. */
  readonly ret: number;
  readonly bytes: Uint8Array;
  /** Offset of the nop behind the call of the original; null without that call. */
  readonly ipAfterCall: number | null;
  /** Offset where a retired image goes on; null without that call. */
  readonly ipEpilogue: number | null;
  /** How many bytes the kernel writes from `image` on: `bytes`; in v6.12 all `imageSize`, whatever the rest may hold. */
  readonly writtenBytes: number;
  /** What the kernel's log says of it. */
  readonly warning: string | undefined;
  /** Provenance, relocations, sites; only when asked for. */
  readonly code: Code | undefined;
}

export interface RefusedImage {
  /** Negative errno. */
  readonly ret: number;
  readonly bytes?: never;
  /** The reason in words. */
  readonly why: string;
  /** Both may be known by the time of the refusal, and then the kernel has noted them in `im`. */
  readonly ipAfterCall: number | null;
  readonly ipEpilogue: number | null;
  /** How many bytes the kernel has written from `image` on, perhaps past its end, before it refused. */
  readonly writtenBytes: number;
}

/** Bytes at the end of the room that must stay free. Kernel: BPF_INSN_SAFETY. */
const SAFETY = 64;

/** Bytes of the page that a size query emits into. */
const PAGE = 4096;

// One image at a time is emitted, so all share their scratch memory.
const scratch = new Uint8Array(16384);

/**
 * Emits one trampoline image, byte for byte as the kernel of that revision does.
 * Pure: nothing but the request decides the bytes, and the room behind `request.image` is not touched.
 *
 * @param revision a kernel revision by name, or an emitter of one's own: a revision with pieces replaced.
 * @param options.provenance also give steps, notes and relocations (slower; default false).
 * @throws InputError for a request that no kernel can be asked: a missing helper address, a size that is no byte.
 *
 * Kernel: arch_prepare_bpf_trampoline, arch/x86/net/bpf_jit_comp.c
 */
export function prepareTrampoline(
  revision: RevisionName | Revision,
  request: TrampolineRequest,
  options: { readonly provenance?: boolean } = {},
): Prepared {
  const rev = typeof revision === 'string' ? revisions[revision] : revision;
  checkSizes(request.argSizes);
  const flags = request.flags & rev.knownFlags;
  const refusal = rev.refuse(request, flags);
  if (refusal !== undefined) return { ...NOTHING_DONE, ret: -Errno[refusal.code], why: refusal.why };

  const record = options.provenance ?? false;
  const asm = new Assembler(request.image, { record, buffer: scratch });
  const emission: Emission = {
    asm,
    rev,
    request,
    config: request.config ?? NO_CONFIG,
    flags,
    frame: rev.frame(request, flags),
    doFexit: asm.label('do_fexit'),
    ipAfterCall: undefined,
    ipEpilogue: undefined,
  };
  const { inPlace, spareBytes } = rev.delivery;
  try {
    emitTrampoline(emission);
  } catch (error) {
    if (error instanceof OutOfRange) return refused(emission, 'EINVAL', error.message);
    throw error;
  }
  const length = asm.offset;
  const room = request.imageSize - SAFETY;
  if (length > room) return refused(emission, 'EFAULT', `${length} bytes; the room takes ${room}`);
  const code = record ? asm.finish() : undefined;
  return {
    ret: length + spareBytes,
    bytes: code?.bytes ?? asm.bytes(),
    ipAfterCall: emission.ipAfterCall ?? null,
    ipEpilogue: emission.ipEpilogue ?? null,
    writtenBytes: inPlace ? length : request.imageSize,
    warning: rev.warn(flags),
    code,
  };
}

/**
 * Asks how much room an image needs, as v6.12 does before it allocates: emits it into one page, as if it were to
 * stay there. So what has no room in a page, or does not reach from there, is refused here already.
 *
 * @param page where the kernel's temporary page happens to be.
 * @returns the length and 64 more, or a negative errno. At most 4096.
 * @throws InputError as `prepareTrampoline`, and for a revision that cannot be asked.
 *
 * Kernel: arch_bpf_trampoline_size, arch/x86/net/bpf_jit_comp.c (v6.12).
 * simplified: the query has a bpf_tramp_image of its own on the stack; here `im` stays the request's.
 */
export function trampolineSize(
  revision: RevisionName | Revision,
  request: Omit<TrampolineRequest, 'image' | 'imageSize'>,
  page: Kaddr,
): number {
  const rev = typeof revision === 'string' ? revisions[revision] : revision;
  if (!rev.delivery.sizeQuery)
    throw new InputError('revision', undefined, `${rev.name} has no size query; images take a page`);
  return prepareTrampoline(rev, { ...request, image: page, imageSize: PAGE }).ret;
}

const NO_CONFIG: TrampolineConfig = {};
const NOTHING_DONE = { ipAfterCall: null, ipEpilogue: null, writtenBytes: 0 } as const;

function refused(emission: Emission, code: ErrnoName, why: string): RefusedImage {
  return {
    ret: -Errno[code],
    why,
    ipAfterCall: emission.ipAfterCall ?? null,
    ipEpilogue: emission.ipEpilogue ?? null,
    writtenBytes: emission.rev.delivery.inPlace ? emission.asm.offset : 0,
  };
}

function checkSizes(argSizes: readonly number[]): void {
  for (const size of argSizes) {
    if (!Number.isInteger(size) || size < 0 || size > 255) {
      throw new InputError('argSizes', undefined, `an argument of ${size} bytes; wanted 0 to 255`);
    }
  }
}

/** The order of pieces: the same in every revision. */
function emitTrampoline(emission: Emission): void {
  const { rev, flags, request } = emission;
  const callOriginal = (flags & TrampFlag.CALL_ORIG) !== 0;
  const restoreRegs = (flags & TrampFlag.RESTORE_REGS) !== 0;
  const modifiesReturn = request.fmodRet.length > 0;

  rev.prologue(emission);
  rev.argCount(emission);
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
  else rev.tailCallOnly(emission);
  rev.epilogue(emission);
}
