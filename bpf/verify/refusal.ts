import { BPF_CALL, BPF_JMP, type BpfInsn, disasmInsn } from '../../jit/index.ts';
import { InputError } from '../../lib/index.ts';
import { helperName } from './helper-names.ts';

/**
 * Refuses a program: its name, the number of the instruction in the object, the instruction, why.
 *
 * Kernel: a line of the verifier's log, and EINVAL or EACCES.
 */
export function refuse(
  { name, insns }: { readonly name: string; readonly insns: readonly BpfInsn[] },
  at: number,
  reason: string,
): never {
  const insn = insns[at];
  const text = insn === undefined ? '' : `, ${disasmInsn(insn, insns[at + 1], { callee })}`;
  throw new InputError(name, `instruction ${at}${text}`, reason);
}

const callee = ({ code, src, imm }: BpfInsn): string | undefined =>
  code === (BPF_JMP | BPF_CALL) && src === 0 ? helperName(imm) : undefined;
