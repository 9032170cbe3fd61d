import {
  BPF_INSN_BYTES,
  BPF_JIT_REVISIONS,
  type BpfInsn,
  type BpfJitConfig,
  type BpfJitRevisionName,
  type BpfProgram,
  decodeInsns,
} from '../jit/index.ts';
import { fromHex, InputError } from '../lib/index.ts';
import type { Fields } from './fields.ts';

/** What `tramplab jit` is asked to compile. */
interface JitRequest {
  readonly revision: BpfJitRevisionName;
  readonly program: BpfProgram;
  readonly config: BpfJitConfig;
}

/**
 * Reads a request whose fields have the short names of the vectors that kernels were asked with. A field that is
 * missing is 0.
 *
 * @throws InputError naming the field
 */
export function readJitRequest(fields: Fields): JitRequest {
  return {
    revision: fields.oneOf('revision', BPF_JIT_REVISIONS),
    program: {
      insns: insns(fields, 'insns'),
      final: fields.flag('is_func') ? insns(fields, 'final') : undefined,
      image: fields.address('image'),
      stackDepth: fields.integer('sd', 0),
      isSubprog: fields.integer('fidx', 0) !== 0,
      tailCallReachable: fields.flag('tcr'),
      wasClassic: fields.flag('classic'),
      numExentries: fields.integer('nex', 0),
      exceptionBoundary: fields.flag('exb'),
      exceptionCb: fields.flag('excb'),
      arenaKernVmStart: fields.addressOrZero('akern'),
      arenaUserVmStart: fields.addressOrZero('auser'),
    },
    config: config(fields.object('config')),
  };
}

function insns(fields: Fields, field: string): BpfInsn[] {
  const bytes = fromHex(fields.text(field));
  if (bytes === undefined || bytes.length === 0 || bytes.length % BPF_INSN_BYTES !== 0) {
    throw new InputError(field, undefined, `wanted instructions of ${BPF_INSN_BYTES} bytes, as hex`);
  }
  return decodeInsns(bytes);
}

const CFI = ['off', 'kcfi', 'fineibt'] as const;

function config(fields: Fields): BpfJitConfig {
  const cfi = CFI[fields.integer('cfi', 0)];
  if (cfi === undefined)
    throw new InputError('config.cfi', undefined, 'wanted 0, 1 for kCFI or 2 for FineIBT');
  return {
    callBase: fields.addressOrZero('base'),
    taskSizeMax: fields.addressOrZero('tsm'),
    thisCpuOff: Number(BigInt.asIntN(32, fields.addressOrZero('percpu'))),
    exHandler: fields.addressOrZero('exhandler'),
    thunks: {
      indirectRcx: fields.addressOrZero('thunk_rcx'),
      itsRcx: fields.addressOrZero('its_rcx'),
      return: fields.addressOrZero('retthunk'),
      clearBhbLoop: fields.addressOrZero('bhbloop'),
    },
    ibt: fields.flag('ibt'),
    sls: fields.flag('sls'),
    retpoline: fields.flag('retpoline'),
    retpolineLfence: fields.flag('lfence'),
    its: fields.flag('its'),
    rethunk: fields.flag('rethunk'),
    bhbLoop: fields.flag('bhb'),
    bhbHw: fields.flag('ibhf'),
    hypervisor: fields.flag('hyper'),
    capSysAdmin: fields.flag('cap'),
    sse2: fields.flag('xmm2'),
    bmi2: fields.flag('bmi2'),
    cfi,
    cfiHash: hash(fields, 'cfihash'),
    cfiSubprogHash: hash(fields, 'cfisubhash'),
  };
}

const hash = (fields: Fields, field: string): number =>
  Number(BigInt.asUintN(32, fields.addressOrZero(field)));
