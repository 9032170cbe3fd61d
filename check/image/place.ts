import type { HelperAddresses } from '../../jit/index.ts';
import type { Kaddr } from '../../lib/index.ts';

const LAST_PAGE = 0xffff_ffff_ffff_f000n;

/** Where everything that an image names is. */
export interface Place {
  readonly image: Kaddr;
  /** struct bpf_tramp_image. */
  readonly im: Kaddr;
  readonly origCall: Kaddr;
  readonly helpers: HelperAddresses;
  /** The counter of calls, as images name it: relative to the per-CPU area. */
  readonly callDepth: Kaddr;
  /** In the order of `programsOf`. */
  readonly programs: readonly ProgramPlace[];
}

export interface ProgramPlace {
  /** struct bpf_prog. */
  readonly prog: Kaddr;
  readonly bpfFunc: Kaddr;
  readonly insnsi: Kaddr;
  /** Its counters among those of the place: programs that share a struct share a number. */
  readonly unit: number;
}

/** Addresses of the guest code that images are called from. */
export interface Callers {
  /** The stack, word by word; each address is made once. */
  readonly stack: readonly Kaddr[];
  /** Index in it of the driver's rsp. */
  readonly top: number;
  readonly driverReturn: Kaddr;
  readonly nestedReturn: Kaddr;
  readonly behind: Kaddr;
  readonly otherBehind: Kaddr;
  /** The run_ctx that is current before. */
  readonly runCtx: Kaddr;
}

/**
 * Whether a struct can be at an address: not at null, not in the last page, where error pointers point, and only where
 * x86 has addresses at all.
 */
export function canHoldData(address: Kaddr): boolean {
  return address >= 4096n && address < LAST_PAGE && isCanonical(address);
}

/** 48 bits, sign-extended. */
export function isCanonical(address: Kaddr): boolean {
  return BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;
}
