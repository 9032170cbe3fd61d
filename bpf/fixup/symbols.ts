import { BPF_PSEUDO_BTF_ID, type BpfInsn } from '../../jit/index.ts';
import type { BpfCode, BpfEnvironment } from '../verify/environment.ts';
import { putImm64 } from './images.ts';

/**
 * Puts what is known of the kernel's symbols into the immediates that load them: of one without a type its
 * address, 0 when it is not there; of one with a type its index in the environment, until the program is checked.
 *
 * libbpf: bpf_object__relocate_data
 */
export function withSymbols(code: BpfCode, { externs }: BpfEnvironment): BpfCode {
  const symbols = code.references.filter(({ kind }) => kind === 'ksym');
  if (symbols.length === 0) return code;
  const insns: BpfInsn[] = [...code.insns];
  for (const reference of symbols) {
    if (reference.kind !== 'ksym') continue;
    const address = externs[reference.extern]?.address;
    const typed = insns[reference.insn]?.src === BPF_PSEUDO_BTF_ID && address !== undefined;
    if (typed) putImm64(insns, reference.insn, BigInt(reference.extern));
    else putImm64(insns, reference.insn, address ?? 0n, 0);
  }
  return { ...code, insns };
}
