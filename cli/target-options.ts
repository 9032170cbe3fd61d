import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import type { EngineName } from '../emu/index.ts';
import {
  type BpfPrograms,
  createLab,
  type Lab,
  type ProgramCode,
  type ProgramObject,
  readText,
} from '../lab/index.ts';
import { InputError } from '../lib/index.ts';
import { ATTACH_KINDS, type AttachKind, MANAGED_REVISIONS, type ManagedRevision } from '../tramp/index.ts';

/** What `run` and `listing` have in common: a target, and what is attached to it. */
export interface TargetOptions {
  readonly asm?: string;
  readonly attach?: readonly string[];
  readonly bpf?: readonly string[];
  readonly model?: readonly string[];
  readonly revision: ManagedRevision;
  readonly engine: EngineName;
  readonly cpus: string;
}

/** Collects the values of an option that may be repeated. */
export function gather(value: string, previous: readonly string[] = []): readonly string[] {
  return [...previous, value];
}

/** Adds the options; they are checked when the lab is opened. */
export function addTargetOptions(command: Command): Command {
  return command
    .option(
      '--asm <file>',
      'assembly text in place of TARGET; labels are functions, those that start with `call __fentry__` or a 5-byte nop can be traced',
    )
    .option(
      '--attach <kind:function=source>',
      `attach a program (repeatable); kind ${ATTACH_KINDS.join(', ')}; .s appended when sleepable; source FILE.s, FILE.o:FUNCTION or FILE.bpf.o:PROGRAM; with ,cookie=0x1234 behind it that is its cookie (v6.1 on)`,
      gather,
    )
    .option(
      '--bpf <file>',
      'an eBPF object; every program of it attaches where its section says (repeatable)',
      gather,
    )
    .option(
      '--model <prototype>',
      "C prototype of a function without BTF, 'int f(int a, u64 b)'; a struct by value with its members, 'int f(struct s { long a; int b; } x)' (repeatable)",
      gather,
    )
    .addOption(new Option('--revision <name>', 'kernel revision').choices(MANAGED_REVISIONS).default('v5.15'))
    .addOption(
      new Option('--engine <name>', "CPU emulator, or native: the host's own CPU")
        .choices(['unicorn', 'unicorn.js', 'native'])
        .default('unicorn'),
    )
    .option('--cpus <n>', 'number of CPUs, 1 to 64', '1');
}

/** A lab with the target loaded and everything attached, and the program objects that came with it. */
export interface OpenLab {
  readonly lab: Lab;
  readonly objects: readonly (ProgramObject | BpfPrograms)[];
}

/** @throws InputError, KernelError; the lab is closed then */
export async function openLab(target: string | undefined, options: TargetOptions): Promise<OpenLab> {
  if ((target === undefined) === (options.asm === undefined)) {
    throw new InputError('TARGET', undefined, 'give an ELF file or --asm FILE, one of the two');
  }
  const attachments = (options.attach ?? []).map(parseAttach);
  const lab = await createLab({
    revision: options.revision,
    engine: options.engine,
    cpus: positive('--cpus', options.cpus),
  });
  try {
    if (target !== undefined) lab.load(target);
    if (options.asm !== undefined) await lab.loadText(readText(options.asm), options.asm);
    for (const model of options.model ?? []) lab.model(lab.prototype(model, '--model').name);
    const bpf = (options.bpf ?? []).map((file) => {
      const programs = lab.loadBpf(file);
      programs.attachAll();
      return programs;
    });
    const named = attachBpf(lab, attachments);
    const objects = new Map<string, ProgramObject>();
    for (const { kind, fn, source, sleepable, cookie } of attachments) {
      if (isBpf(source)) continue;
      lab.attach(kind, fn, await programOf(lab, source, objects), { sleepable, cookie });
    }
    return { lab, objects: [...bpf, ...named, ...objects.values()] };
  } catch (error) {
    lab.close();
    throw error;
  }
}

interface Attach {
  readonly kind: AttachKind;
  readonly sleepable: boolean;
  readonly fn: string;
  readonly source: string;
  readonly cookie: bigint;
}

/** `fentry.s:function=source`, `fentry:function=source,cookie=0x1234`. */
function parseAttach(text: string): Attach {
  const match = /^([a-z_]+)(\.s)?:([A-Za-z_.$][\w.$]*)=(.+?)(?:,cookie=([^,]*))?$/.exec(text);
  const [, word, suffix, fn, source, cookie = '0'] = match ?? [];
  const kind = ATTACH_KINDS.find((candidate) => candidate === word);
  if (kind === undefined || fn === undefined || source === undefined) {
    const wanted = `KIND:FUNCTION=SOURCE with KIND one of ${ATTACH_KINDS.join(', ')}`;
    throw new InputError('--attach', undefined, `${text}: wanted ${wanted}, as in fentry:f=probe.s`);
  }
  if (!/^(0x[0-9a-fA-F]{1,16}|\d{1,20})$/.test(cookie)) {
    throw new InputError(
      '--attach',
      undefined,
      `${text}: cookie ${cookie || '(none)'} is no number; wanted 0x1234`,
    );
  }
  return { kind, sleepable: suffix !== undefined, fn, source, cookie: BigInt(cookie) };
}

/** Whether a source is a program of an eBPF object. */
const isBpf = (source: string): boolean => /\.bpf\.o:[^:]*$/.test(source);

/**
 * Loads the eBPF objects that attachments name, each once, with their programs sent to where they are wanted, and
 * attaches these.
 */
function attachBpf(lab: Lab, attachments: readonly Attach[]): BpfPrograms[] {
  const wanted = attachments.filter(({ source }) => isBpf(source));
  const files = [...new Set(wanted.map(({ source }) => split(source).file))];
  return files.map((file) => {
    const ours = wanted.filter(({ source }) => split(source).file === file);
    const targets: Record<string, string> = {};
    for (const { source, fn } of ours) {
      const { name } = split(source);
      if (targets[name] !== undefined) {
        throw new InputError(
          '--attach',
          undefined,
          `${source} attaches to ${targets[name]}; it can do so once`,
        );
      }
      targets[name] = fn;
    }
    const programs = lab.loadBpf(file, { targets, also: Object.keys(targets) });
    for (const { kind, sleepable, source, cookie } of ours) {
      const { name } = split(source);
      const { program } = programs.program(name);
      if (program.kind !== kind || program.sleepable !== sleepable) {
        const is = program.kind + (program.sleepable ? '.s' : '');
        throw new InputError(
          '--attach',
          undefined,
          `${source}: its section ${program.section} makes it ${is}; write ${is}:FUNCTION=...`,
        );
      }
      programs.attach(name, { cookie });
    }
    return programs;
  });
}

/** `FILE.o:NAME`. */
function split(source: string): { readonly file: string; readonly name: string } {
  const at = source.lastIndexOf(':');
  return { file: source.slice(0, at), name: source.slice(at + 1) };
}

/** `FILE.s`, or `FILE.o:FUNCTION`. */
async function programOf(
  lab: Lab,
  source: string,
  objects: Map<string, ProgramObject>,
): Promise<ProgramCode> {
  if (/\.(s|S|asm)$/.test(source)) {
    return lab.assemble(basename(source).replace(/\.\w+$/, ''), readText(source), source);
  }
  const [, file, fn] = /^(.+):([^:]+)$/.exec(source) ?? [];
  if (file === undefined || fn === undefined) {
    throw new InputError('--attach', undefined, `${source}: wanted FILE.s or FILE.o:FUNCTION`);
  }
  const object = objects.get(file) ?? lab.loadPrograms(file);
  objects.set(file, object);
  return object.program(fn);
}

/** A whole number greater than 0 from an option. @throws InputError */
export function positive(option: string, text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || !Number.isSafeInteger(value)) {
    throw new InputError(option, undefined, `${text} is no whole number greater than 0`);
  }
  return value;
}
