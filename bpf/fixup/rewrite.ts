/*
 * Each instruction as the JIT wants it.
 *
 * Kernel: convert_pseudo_ld_imm64, convert_ctx_accesses, do_misc_fixups, fixup_kfunc_call,
 * opt_subreg_zext_lo32_rnd_hi32; kernel/bpf/verifier.c
 */

import * as op from '../../jit/index.ts';
import { type BpfInsn, bpfMode, bpfSize, isLdImm64 } from '../../jit/index.ts';
import { addrAdd, addrDistance, Bug, InputError, type Kaddr } from '../../lib/index.ts';
import type { BpfCode, BpfEnvironment } from '../verify/environment.ts';
import type { Facts } from '../verify/explore.ts';
import { helperName } from '../verify/helper-names.ts';
import { Helper } from '../verify/helpers.ts';
import { isAddressOfFunction, isCallOfFunction, subprogFrom } from '../verify/program-map.ts';
import type { CheckedProgram } from './checked.ts';
import { guardedDivision } from './div-mod.ts';
import { putImm64 } from './images.ts';
import { inlinedHelper } from './inline-helpers.ts';
import type { Line } from './lines.ts';
import { zeroExtended } from './zero-extension.ts';

/** The rewriting of one program, function by function in order: direct tail calls are numbered through. */
export class Rewriting {
  readonly pokes: CheckedProgram['pokes'][number][] = [];
  callsGetFuncIp = false;
  readonly #code: BpfCode;
  readonly #env: BpfEnvironment;
  readonly #facts: Facts;
  /** By subprogram: its index among those that are left. */
  readonly #indices: ReadonlyMap<number, number>;

  constructor(code: BpfCode, env: BpfEnvironment, facts: Facts, live: readonly number[]) {
    this.#code = code;
    this.#env = env;
    this.#facts = facts;
    this.#indices = new Map(live.map((subprog, index) => [subprog, index]));
  }

  rewrite(line: Line): void {
    const [first] = line.insns;
    if (first === undefined || line.target !== undefined) return;
    line.insns = this.#rewritten(first, line);
  }

  #rewritten(insn: BpfInsn, { origin, insns }: Line): readonly BpfInsn[] {
    if (isLdImm64(insn)) return this.#immediate(insns, origin);
    if (insn.code === (op.BPF_JMP | op.BPF_CALL)) return this.#call(insn, origin);
    if (this.#facts.loads.get(origin) === 'probe') return [probing(insn)];
    return guardedDivision(insn) ?? zeroExtended(this.#code.insns, origin, this.#facts.seen) ?? insns;
  }

  #immediate(insns: readonly BpfInsn[], origin: number): readonly BpfInsn[] {
    const done = [...insns];
    const insn = insns[0] as BpfInsn;
    if (isAddressOfFunction(insn)) {
      putImm64(done, 0, BigInt(this.#functionAt(origin + 1 + insn.imm)));
      return done;
    }
    const address = this.#address(insn, insns[1]?.imm ?? 0);
    if (address !== undefined) putImm64(done, 0, address, 0);
    return done;
  }

  /** What a marked immediate stands for; undefined for a plain one. */
  #address(insn: BpfInsn, high: number): Kaddr | undefined {
    const { maps, globals, externs } = this.#env;
    switch (insn.src) {
      case op.BPF_PSEUDO_MAP_FD:
        return maps[insn.imm]?.address;
      case op.BPF_PSEUDO_MAP_VALUE: {
        const start = globals[insn.imm]?.address;
        return start && addrAdd(start, high >>> 0);
      }
      case op.BPF_PSEUDO_BTF_ID:
        return externs[insn.imm]?.address;
      default:
        return undefined;
    }
  }

  #functionAt(slot: number): number {
    const index = this.#indices.get(subprogFrom(this.#code, slot));
    if (index === undefined) throw new Bug(`the function at slot ${slot} is not there`);
    return index;
  }

  #call(insn: BpfInsn, origin: number): readonly BpfInsn[] {
    if (isCallOfFunction(insn)) return [{ ...insn, imm: this.#functionAt(origin + 1 + insn.imm) }];
    if (insn.src === op.BPF_PSEUDO_KFUNC_CALL) {
      const { address, name } = this.#env.externs[insn.imm] ?? {};
      return [{ ...insn, imm: this.#distance(address, name ?? '', origin) }];
    }
    if (insn.imm === Helper.TAIL_CALL) return [this.#tailCall(origin)];
    if (insn.imm === Helper.GET_FUNC_IP) this.callsGetFuncIp = true;
    const inlined = inlinedHelper(insn.imm, this.#env);
    if (inlined !== undefined) return inlined;
    const address = this.#env.helper(insn.imm);
    return [{ ...insn, imm: this.#distance(address, helperName(insn.imm) ?? '', origin) }];
  }

  #distance(address: Kaddr | undefined, name: string, origin: number): number {
    if (address === undefined) throw new Bug(`${name} has no address`);
    const distance = addrDistance(this.#env.callBase, address);
    if (BigInt.asIntN(32, distance) === distance) return Number(distance);
    throw new InputError(this.#code.name, `instruction ${origin}`, `${name} is out of a call's reach`);
  }

  #tailCall(origin: number): BpfInsn {
    const { map, slot } = this.#facts.tailCalls.get(origin) ?? {};
    const direct = map !== undefined && slot !== undefined;
    if (direct) this.pokes.push({ map, slot });
    const imm = direct ? this.pokes.length : 0;
    return { code: op.BPF_JMP | op.BPF_TAIL_CALL, dst: 0, src: 0, off: 0, imm };
  }
}

/** A load that gives 0 where there is nothing. */
function probing(insn: BpfInsn): BpfInsn {
  const mode = bpfMode(insn.code) === op.BPF_MEMSX ? op.BPF_PROBE_MEMSX : op.BPF_PROBE_MEM;
  return { ...insn, code: op.BPF_LDX | bpfSize(insn.code) | mode };
}
