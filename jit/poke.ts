import { addrAdd, Errno, type Kaddr } from '../lib/index.ts';
import { ENDBR_BYTES, isEndbr } from './endbr.ts';
import { NOP5 } from './kernel-encoding.ts';
import type { Revision, RevisionName } from './rev/revision.ts';
import { revisions } from './rev/revisions.ts';

/** What stands or shall stand at a patched place. Kernel: enum bpf_text_poke_type. */
export type PokeType = 'CALL' | 'JUMP';

export interface PokeRequest {
  /** The place: a traced function's entry, or an image's ip_after_call. */
  readonly ip: Kaddr;
  readonly type: PokeType;
  /** Where the present call or jump goes; null when a nop is expected. */
  readonly oldAddr: Kaddr | null;
  /** Where the new one shall go; null for a nop. */
  readonly newAddr: Kaddr | null;
  /** Whether `ip` lies in kernel or BPF text. */
  readonly isText: boolean;
  /** CONFIG_X86_KERNEL_IBT; nothing before v6.1. Default no. */
  readonly ibt?: boolean;
}

/** What a poke comes to: `write` is undefined when no byte changes. */
export interface PokeResult {
  /** 0 written, 1 nothing to do, or a negative errno. */
  readonly ret: number;
  readonly write: Uint8Array | undefined;
  /** Where the instruction stands, bytes from `ip` on: behind an ENDBR. */
  readonly offset: number;
}

/** Length of every patched instruction, bytes. */
export const POKE_BYTES = 5;

const OPCODE: Readonly<Record<PokeType, number>> = { CALL: 0xe8, JUMP: 0xe9 };

const refused = (code: keyof typeof Errno, offset = 0): PokeResult => ({
  ret: -Errno[code],
  write: undefined,
  offset,
});

/**
 * Decides a text poke: what is checked, in which order, and which five bytes come out. Pure; the
 * caller writes them.
 *
 * @param prior the bytes at `ip` now, at least 5; with `ibt` at least 9: an ENDBR may come first.
 *
 * Kernel: __bpf_arch_text_poke, arch/x86/net/bpf_jit_comp.c; from v6.1 on the step over ENDBR in bpf_arch_text_poke
 */
export function decidePoke(
  revision: RevisionName | Revision,
  request: PokeRequest,
  prior: Uint8Array,
): PokeResult {
  const { pokeSkipsEndbr } = typeof revision === 'string' ? revisions[revision] : revision;
  if (!request.isText) return refused('EINVAL');
  // memory is looked at here already, before any distance is
  const offset = pokeSkipsEndbr && request.ibt === true && isEndbr(prior) ? ENDBR_BYTES : 0;
  const ip = addrAdd(request.ip, offset);
  const expected = patchBytes(request.type, ip, request.oldAddr);
  if (expected === undefined) return refused('ERANGE', offset);
  const wanted = patchBytes(request.type, ip, request.newAddr);
  if (wanted === undefined) return refused('ERANGE', offset);
  if (expected.some((byte, i) => prior[offset + i] !== byte)) return refused('EBUSY', offset);
  if (expected.every((byte, i) => wanted[i] === byte)) return { ret: 1, write: undefined, offset };
  return { ret: 0, write: wanted, offset };
}

/** The five bytes of a call or jump from `ip` to `target`, or of the nop when there is no target; undefined out of range. */
export function patchBytes(type: PokeType, ip: Kaddr, target: Kaddr | null): Uint8Array | undefined {
  // in C both are the null pointer
  if (target === null || target === 0n) return Uint8Array.from(NOP5);
  const distance = BigInt.asIntN(64, target - ip - BigInt(POKE_BYTES));
  if (distance !== BigInt.asIntN(32, distance)) return undefined;
  const bytes = new Uint8Array(POKE_BYTES);
  bytes[0] = OPCODE[type];
  new DataView(bytes.buffer).setInt32(1, Number(distance), true);
  return bytes;
}
