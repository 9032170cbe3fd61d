import type { BpfPrograms, CallReport, GlobalVariable, Lab, ProgramObject } from '../lab/index.ts';
import { hex64, toHex } from '../lib/index.ts';
import { type Called, globalsOf, programRows } from './outcome.ts';

/** What `tramplab run --json` prints; 64-bit values are bigints still. */
export function runDocument(
  lab: Lab,
  objects: readonly (ProgramObject | BpfPrograms)[],
  called: readonly Called[],
  options: { readonly engine: string; readonly trace: boolean; readonly listing: boolean },
): Record<string, unknown> {
  return {
    revision: lab.kernel.revision,
    engine: options.engine,
    calls: called.map((call) => ({
      ...callFields(call.report),
      ...(options.trace ? { trace: call.trace } : {}),
    })),
    programs: programRows(lab, called),
    globals: Object.fromEntries(globalsOf(objects).map((variable) => [variable.name, valueText(variable)])),
    trampolines: lab.trampolines().map((info) => ({
      ...info,
      bytes: toHex(info.bytes),
      ...(options.listing ? { listing: lab.listing(info.function) } : {}),
    })),
    ...(lab.bpf.length === 0 ? {} : { bpf: lab.bpf.flatMap((object) => bpfFields(object, options.listing)) }),
    log: lab.log,
  };
}

/** The functions of an object's programs, as they stand in memory. */
function bpfFields(object: BpfPrograms, listing: boolean): Record<string, unknown>[] {
  return [...object.programs.keys()].flatMap((program) =>
    object.listing(program).map(({ ksym, image, length, bytes, parts }) => ({
      program,
      ksym,
      image,
      length,
      bytes: toHex(bytes),
      ...(listing ? { listing: parts } : {}),
    })),
  );
}

function callFields(report: CallReport): Record<string, unknown> {
  return {
    function: report.function,
    args: report.args,
    ret: report.ret,
    instructions: report.instructions,
    fault: faultFields(report),
    seen: report.seen.map(({ program, kind, target, depth, args, ret, returned, cookie }) => ({
      program,
      cookie,
      kind,
      target,
      depth,
      args,
      ret: ret ?? null,
      returned: returned ?? null,
    })),
  };
}

function faultFields({ fault }: CallReport): Record<string, unknown> | null {
  if (fault === null) return null;
  const { kind, rip, step, detail, address, symbol, cpu } = fault;
  return { kind, rip, step: step ?? null, detail, address: address ?? null, symbol: symbol ?? null, cpu };
}

/** Integers by value, everything else as hex bytes. */
function valueText({ bytes, scalar, isArray }: GlobalVariable): string {
  if (scalar === undefined || isArray) return toHex(bytes);
  return hex64(BigInt(`0x${toHex(bytes.toReversed())}`));
}
