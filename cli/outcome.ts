import { basename } from 'node:path';
import {
  type Attachment,
  BpfPrograms,
  type CallReport,
  type GlobalVariable,
  type Lab,
  type ProgramObject,
  type TraceEvent,
} from '../lab/index.ts';
import type { CallText } from './call-text.ts';

/** A call that was made. */
export interface Called {
  readonly text: CallText;
  readonly report: CallReport;
  /** Every instruction, when asked for. */
  readonly trace: readonly TraceEvent[];
}

/** An attached program and how often it ran. */
export interface ProgramRow {
  readonly name: string;
  readonly kind: string;
  readonly target: string;
  readonly runs: number;
  readonly misses: number;
  readonly cookie: string;
}

/** Runs are counted by watching, so that counting changes no instruction; misses are the kernel's own counter. */
export function programRows(lab: Lab, called: readonly Called[]): ProgramRow[] {
  const seen = called.flatMap(({ report }) => report.seen);
  return lab.attachments().map(({ prog, function: target, cookie }: Attachment) => ({
    name: prog.name,
    kind: prog.kind + (prog.sleepable ? '.s' : ''),
    target,
    runs: seen.filter((run) => run.prog === prog).length,
    misses: Number(lab.machine.cpus.reduce((sum, { id }) => sum + prog.counters(id).misses, 0n)),
    cookie: `0x${cookie.toString(16)}`,
  }));
}

/** The variables of all program objects; those whose name several objects use, as `object.name`. */
export function globalsOf(objects: readonly (ProgramObject | BpfPrograms)[]): GlobalVariable[] {
  const all = objects.flatMap((object) =>
    object.globals().map((variable) => ({ variable, object: nameOf(object) })),
  );
  return all.map(({ variable, object }) => {
    const shared = all.filter((other) => other.variable.name === variable.name).length > 1;
    return shared ? { ...variable, name: `${object}.${variable.name}` } : variable;
  });
}

function nameOf(object: ProgramObject | BpfPrograms): string {
  return object instanceof BpfPrograms
    ? basename(object.object.file).replace(/\..*$/, '')
    : object.module.name;
}
