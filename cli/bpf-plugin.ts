import { readFileSync } from 'node:fs';
import process from 'node:process';
import type { Command } from 'commander';
import {
  type BpfCode,
  type BpfEnvironment,
  type BpfGlobals,
  type CheckedProgram,
  checkProgram,
  compileProgram,
  FlatMemory,
  interpret,
  interpretable,
  readBpfObject,
} from '../bpf/index.ts';
import { createMachine, type Machine } from '../emu/index.ts';
import {
  BPF_INSN_BYTES,
  BPF_JIT_REVISIONS,
  type BpfJitRevisionName,
  decodeInsns,
  PLAIN_BPF_JIT_CONFIG,
} from '../jit/index.ts';
import { addrAdd, fromHex, InputError, type Kaddr, kaddr } from '../lib/index.ts';
import { Exit } from './exit.ts';

interface PluginOptions {
  readonly program?: string;
  readonly elf?: boolean;
  readonly interpret?: boolean;
  readonly revision: string;
  readonly engine: string;
}

/** `tramplab bpf-plugin`: runs one program for the conformance suite of the instruction set. */
export function addBpfPlugin(program: Command): Command {
  return program
    .command('bpf-plugin')
    .summary('run one eBPF program: the plugin of the bpf_conformance suite')
    .description(
      'Checks a program, compiles it, runs it on the machine, and prints r0 in hex. The program comes as hex from\n' +
        'standard input or --program; the argument is memory, in hex: r1 points to it, r2 is its length. A program\n' +
        'that is refused, or faults, leaves the reason on standard error.',
    )
    .argument('[memory]', 'bytes of memory, hex; spaces do not count', '')
    .option('--program <hex>', 'the program; default: from standard input')
    .option(
      '--elf',
      'it is an eBPF object, in hex or as it is; its first xdp program, or else its first, runs',
    )
    .option('--interpret', 'interpret it, in place of compiling it')
    .option('--revision <revision>', `one of ${BPF_JIT_REVISIONS.join(', ')}`, 'v6.12')
    .option('--engine <engine>', 'where compiled programs run: unicorn, unicorn.js or native', 'unicorn')
    .addHelpText(
      'after',
      `
Example:
  echo b7 00 00 00 2a 00 00 00 95 00 00 00 00 00 00 00 | tramplab bpf-plugin      prints 2a`,
    )
    .action(async (memory: string, options: PluginOptions) => {
      const end = await runPlugin(hexBytes(memory, 'the memory'), options);
      if (end.fault === undefined) process.stdout.write(`${end.r0.toString(16)}\n`);
      else process.stderr.write(`tramplab: ${end.fault}\n`);
      process.exitCode = end.fault === undefined ? Exit.FINE : Exit.FINDING;
    });
}

/** How a program ended. */
type End = { readonly r0: bigint; readonly fault?: never } | { readonly fault: string };

async function runPlugin(memory: Uint8Array, options: PluginOptions): Promise<End> {
  const revision = revisionOf(options.revision);
  const { code, globals } = readProgram(options);
  if (options.interpret === true) return interpreted(code, globals, memory, revision);
  const engine = engineOf(options.engine);
  const machine = await createMachine({ engine });
  try {
    return compiled(machine, code, globals, memory, revision);
  } finally {
    machine.close();
  }
}

// -- what is given ------------------------------------------------------------------------------

function revisionOf(name: string): BpfJitRevisionName {
  const found = BPF_JIT_REVISIONS.find((one) => one === name);
  if (found !== undefined) return found;
  throw new InputError('--revision', undefined, `${name} is not one of ${BPF_JIT_REVISIONS.join(', ')}`);
}

function engineOf(name: string): 'unicorn' | 'unicorn.js' | 'native' {
  if (name === 'unicorn' || name === 'unicorn.js' || name === 'native') return name;
  throw new InputError('--engine', undefined, `${name} is not one of unicorn, unicorn.js, native`);
}

function hexBytes(text: string, what: string): Uint8Array {
  const bytes = fromHex(text.replace(/\s+/g, ''));
  if (bytes !== undefined) return bytes;
  throw new InputError(what, undefined, 'is not hex: two digits a byte, with or without spaces between them');
}

/** The bytes of the program or object. An object may also come as it is. */
function given({ program }: PluginOptions): Uint8Array {
  if (program !== undefined) return hexBytes(program, '--program');
  const input = readFileSync(0);
  return input[0] === 0x7f ? new Uint8Array(input) : hexBytes(input.toString('latin1'), 'standard input');
}

interface Given {
  readonly code: BpfCode;
  readonly globals: readonly BpfGlobals[];
}

function readProgram(options: PluginOptions): Given {
  const bytes = given(options);
  return options.elf === true ? firstOfObject(bytes) : wholeProgram(bytes);
}

/** Instructions alone: the functions of the program are where its calls lead. */
function wholeProgram(bytes: Uint8Array): Given {
  if (bytes.length === 0 || bytes.length % BPF_INSN_BYTES !== 0) {
    throw new InputError(
      'program',
      undefined,
      `${bytes.length} bytes are no whole instructions of ${BPF_INSN_BYTES}`,
    );
  }
  const insns = decodeInsns(bytes);
  const starts = new Set([0]);
  for (const [at, { code, src, imm }] of insns.entries()) {
    const calls = (code === 0x85 && src === 1) || (code === 0x18 && src === 4);
    if (calls && at + 1 + imm >= 0 && at + 1 + imm < insns.length) starts.add(at + 1 + imm);
  }
  const sorted = [...starts].sort((a, b) => a - b);
  const subprogs = sorted.map((start, i) => ({
    start,
    length: (sorted[i + 1] ?? insns.length) - start,
    name: i === 0 ? 'program' : `function at ${start}`,
    global: false,
    type: undefined,
  }));
  return { code: { name: 'program', insns, subprogs, references: [] }, globals: [] };
}

function firstOfObject(bytes: Uint8Array): Given {
  const object = readBpfObject(bytes, { file: 'object' });
  const program = object.programs.find(({ section }) => section.startsWith('xdp')) ?? object.programs[0];
  if (program === undefined) throw new InputError('object', undefined, 'there is no program in it');
  if (object.maps.length > 0) {
    throw new InputError(
      'object',
      undefined,
      'it has maps, which this command does not make; see tramplab run --bpf',
    );
  }
  return { code: program, globals: object.globals };
}

// -- where it runs ------------------------------------------------------------------------------

/** Where in the kernel's text __bpf_call_base is. */
const CALL_BASE_OFFSET = 0x1_0000;

/** Where the memory and the variables stand. */
interface Places {
  readonly memory: Kaddr;
  readonly globals: readonly Kaddr[];
  readonly callBase: Kaddr;
}

function check(
  given: Given,
  memoryBytes: number,
  revision: BpfJitRevisionName,
  places: Places,
): CheckedProgram {
  const env: BpfEnvironment = {
    revision,
    entry: {
      kind: 'function',
      params: [
        memoryBytes === 0 ? { kind: 'scalar' } : { kind: 'memory', sizeBytes: memoryBytes, nullable: false },
        { kind: 'scalar' },
      ],
    },
    sleepable: false,
    maps: [],
    globals: given.globals.map(({ section, sizeBytes, readOnly, contents }, i) => ({
      name: section,
      address: places.globals[i] as Kaddr,
      sizeBytes,
      readOnly,
      contents,
    })),
    externs: [],
    helper: () => undefined,
    callBase: places.callBase,
    cpuNumberOffset: 0,
  };
  return checkProgram(given.code, env);
}

function compiled(
  machine: Machine,
  code: BpfCode,
  globals: readonly BpfGlobals[],
  memory: Uint8Array,
  revision: BpfJitRevisionName,
): End {
  const place = (bytes: Uint8Array, sizeBytes: number, name: string): Kaddr => {
    const at = machine.memory.kmalloc(Math.max(sizeBytes, 8), name);
    machine.memory.write(at, bytes);
    return at;
  };
  const places: Places = {
    memory: memory.length === 0 ? kaddr(0) : place(memory, memory.length, 'memory'),
    globals: globals.map(({ contents, sizeBytes, section }) => place(contents, sizeBytes, section)),
    // Not the first page: while lengths are found, calls are counted from address 0, and must reach it.
    callBase: addrAdd(machine.layout.kernelText.start, CALL_BASE_OFFSET),
  };
  const checked = check({ code, globals }, memory.length, revision, places);
  const functions = compileProgram(checked, {
    revision,
    config: { ...PLAIN_BPF_JIT_CONFIG, callBase: places.callBase },
    place: (sizeBytes, name) => machine.memory.allocText(sizeBytes, name),
  });
  for (const { image, bytes } of functions) machine.patchText(image, bytes);
  const end = machine.cpus[0]?.call(functions[0]?.address as Kaddr, [places.memory, BigInt(memory.length)]);
  return end?.fault ? { fault: end.fault.detail } : { r0: end?.ret ?? 0n };
}

const MEMORY_AT = kaddr(0x1000_0000);
const GLOBALS_AT = 0x2000_0000n;
const STACK_TOP = 0x7000_0000n;
/** Eight functions deep. */
const STACK_BYTES = 4096;

function interpreted(
  code: BpfCode,
  globals: readonly BpfGlobals[],
  memory: Uint8Array,
  revision: BpfJitRevisionName,
): End {
  const world = new FlatMemory();
  world.map(MEMORY_AT, memory);
  world.map(STACK_TOP - BigInt(STACK_BYTES), new Uint8Array(STACK_BYTES));
  let next = GLOBALS_AT;
  const at = globals.map(({ contents, sizeBytes }) => {
    const bytes = new Uint8Array(sizeBytes);
    bytes.set(contents);
    const here = kaddr(next);
    world.map(here, bytes);
    next += BigInt(sizeBytes + 64);
    return here;
  });
  const places: Places = {
    memory: memory.length === 0 ? kaddr(0) : MEMORY_AT,
    globals: at,
    callBase: PLAIN_BPF_JIT_CONFIG.callBase,
  };
  const checked = check({ code, globals }, memory.length, revision, places);
  const end = interpret(
    interpretable(checked).insns,
    { memory: world, call: () => 0n },
    { args: [places.memory, BigInt(memory.length)], stackTop: STACK_TOP },
  );
  return 'error' in end ? { fault: `instruction ${end.at}: ${end.error}` } : { r0: end.r0 };
}
