/*
 * The guest code around images: who calls them, and what they call.
 *
 *   driver ──call──▶ launcher ──call──▶ image ──call──▶ stubs at the addresses that it calls
 *     ▲                 │ behind             │                │
 *     │◀──────ret───────┘◀──ret──────────────┤                └──▶ a recorder: one record in the log
 *     │◀──────────────── ret, SKIP_FRAME ────┘
 *
 * The driver goes through many cases in one call. The launcher stands where a traced function's call of
 * its image stands: an image that returns into the traced function comes back behind the launcher's call.
 * Whoever is called overwrites every register that a callee may overwrite.
 */

import {
  Assembler,
  dword,
  gsAt,
  gsPtr,
  type Label,
  type Mem,
  piece,
  ptr,
  qword,
  type Reg,
  r8,
  r9,
  r10,
  r11,
  r12,
  r13,
  r14,
  r15,
  rax,
  rbp,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  rsp,
  TaskStruct,
} from '../../jit/index.ts';
import { addrAdd, Bug, type Kaddr } from '../../lib/index.ts';
import { STACK_ARG_WORDS } from './case.ts';
import {
  ARITHMETIC_FLAGS,
  CALL_DEPTH,
  CaseRecord,
  Control,
  calleeOffset,
  EventKind,
  FAULT_ADDRESS,
  FILL,
  FILLED_BYTES,
  FUNCTION_WORDS,
  NESTED_WORDS,
  PREFIX_WORDS,
  PROGRAM_WORDS,
  RETURN_WORDS,
  recordWords,
  Script,
  ScriptDeed,
} from './log.ts';

/** How far apart registers are that hold garbage: neither half of one is another's. */
const GARBAGE_STEP = 0x0101_0102;

/** Garbage that leaves 0 in r11, which is reckoned last: the zero flag is set, and carry. */
export const GARBAGE_FOR_ZERO: bigint = (1n << 64n) - BigInt(GARBAGE_STEP * r11.num);

/** A flag that no arithmetic touches and that any code may set: ID. */
const MARKER_FLAG = 1 << 21;
/** Interrupts are on: for all that happens here it may be either. */
const INTERRUPT_FLAG = 1 << 9;

const ARG_REGS = [rdi, rsi, rdx, rcx, r8, r9];
const SAVED_REGS = [rbx, rbp, r12, r13, r14, r15];
const SCRATCH = [rcx, rdx, rsi, rdi, r8, r9, r10, r11];

const ENDBR = [0xf3, 0x0f, 0x1e, 0xfa];
const CLD = [0xfc];
const REP_STOSQ = [0xf3, 0x48, 0xab];
const REP_MOVSQ = [0xf3, 0x48, 0xa5];

/** `value` and `nothing`: a kernel function that returns something or not. */
export const RECORDERS = ['program', 'original', 'value', 'nothing'] as const;
export type Recorder = (typeof RECORDERS)[number];

/** Addresses of the guest code. */
export interface Guest {
  readonly start: Kaddr;
  /** `driver(first CaseRecord, how many)`. */
  readonly driver: Kaddr;
  readonly launcher: Kaddr;
  /** Return address of the driver's call of the launcher. */
  readonly driverReturn: Kaddr;
  /** The same of a program's. */
  readonly nestedReturn: Kaddr;
  /** Return address of the launcher's call of the image. */
  readonly behind: Kaddr;
  /** A second one: what is reckoned from its return address leaves the parity flag otherwise. */
  readonly otherLauncher: Kaddr;
  readonly otherBehind: Kaddr;
  /** Where stubs go on, by what they stand for. */
  readonly recorders: Readonly<Record<Recorder, Kaddr>>;
  readonly bytes: Uint8Array;
}

/** What the guest code has to know. */
export interface GuestSurroundings {
  /** Address of the Control block. */
  readonly control: Kaddr;
  /** Address of the clock, a u64. */
  readonly clock: Kaddr;
  /** Per-CPU offsets. */
  readonly currentTask: number;
  readonly mightFaultSplats: number;
  /** u64: the counter of calls; undefined where nobody counts them. */
  readonly callDepth: number | undefined;
  /** u64: returns through the return thunk. */
  readonly thunks: number;
  /** Address of the run_ctx that is current before any image is called. */
  readonly runCtx: Kaddr;
  /** rsp of the driver, on a stack of its own; above it is what its callers keep. */
  readonly stack: Kaddr;
  /** Whether functions can have arguments on the stack. */
  readonly stackArgs: boolean;
}

interface Context extends GuestSurroundings {
  readonly asm: Assembler;
}

/** Assembles all of it for `origin`. */
export function guestCode(origin: Kaddr, surroundings: GuestSurroundings): Guest {
  const asm = new Assembler(origin);
  const context: Context = { ...surroundings, asm };
  driver(context);
  launcher(context, 'launcher', 'behind');
  otherParity(context);
  launcher(context, 'otherLauncher', 'otherBehind');
  program(context);
  original(context);
  value(context);
  nothing(context);
  const { bytes, symbols } = asm.finish();
  const at = (name: string): Kaddr => {
    const symbol = symbols.find((candidate) => candidate.name === name);
    if (symbol === undefined) throw new Bug(`the guest code has no ${name}`);
    return addrAdd(origin, symbol.offset);
  };
  return {
    start: origin,
    driver: at('driver'),
    launcher: at('launcher'),
    driverReturn: at('driverReturn'),
    nestedReturn: at('nestedReturn'),
    behind: at('behind'),
    otherLauncher: at('otherLauncher'),
    otherBehind: at('otherBehind'),
    recorders: {
      program: at('program'),
      original: at('original'),
      value: at('value'),
      nothing: at('nothing'),
    },
    bytes,
  };
}

const here = ({ asm }: Context, name: string): void => asm.symbol(name, asm.offset);

const driver = piece('driver', (context: Context) => {
  const { asm, control, stack } = context;
  const next = asm.label('next');
  const done = asm.label('done');
  here(context, 'driver');
  for (const reg of SAVED_REGS) asm.push(reg);
  asm.movImm64(r11, control);
  asm.mov(ptr(r11, Control.home), rsp);
  asm.movImm64(rsp, stack);
  asm.mov(ptr(r11, Control.record), rdi);
  asm.mov(ptr(r11, Control.left), rsi);
  asm.mov(ptr(r11, Control.rsp), rsp);
  asm.pushfq();
  asm.pop(rax);
  asm.mov(ptr(r11, Control.flags), rax);

  asm.bind(next);
  asm.movImm64(r11, control);
  asm.aluImm8('cmp', qword(ptr(r11, Control.left)), 0);
  asm.jccNear('e', done);
  startCase(context);
  asm.alu('sub', rsp, ptr(r10, CaseRecord.stackBytes));
  leaveStackArgs(context, CaseRecord.stackArgs);
  fillStack(context);
  asm.movImm64(r11, control);
  asm.mov(rax, ptr(r11, Control.flags));
  asm.aluImm32('or', rax, MARKER_FLAG);
  asm.mov(r10, ptr(r11, Control.record));
  asm.mov(rcx, ptr(r10, CaseRecord.garbage));
  asm.aluImm32('and', rcx, ARITHMETIC_FLAGS | INTERRUPT_FLAG);
  asm.alu('or', rax, rcx, 'callers leave them as they like');
  asm.push(rax);
  asm.popfq();
  asm.pushfq('what came of it: user space cannot change them all');
  asm.pop(rcx);
  asm.mov(ptr(r11, Control.entered), rcx);
  SAVED_REGS.forEach((reg, i) => {
    asm.mov(reg, ptr(r10, CaseRecord.saved + 8 * i));
  });
  loadArgs(context, CaseRecord.args);
  asm.callIndirect(r11);
  here(context, 'driverReturn');
  logReturn(context);
  asm.aluImm32('add', qword(ptr(r11, Control.record)), CaseRecord.size);
  asm.dec(qword(ptr(r11, Control.left)));
  asm.jmpNear(next);

  asm.bind(done);
  asm.mov(rax, ptr(r11, Control.flags));
  asm.push(rax);
  asm.popfq();
  asm.mov(rsp, ptr(r11, Control.home));
  for (const reg of SAVED_REGS.toReversed()) asm.pop(reg);
  asm.ret();
});

/** The case's script, log and clock, and a task that holds nothing. r11: Control. */
const startCase = piece('start', (context: Context) => {
  const { asm, clock, currentTask, mightFaultSplats, runCtx, thunks } = context;
  asm.mov(r10, ptr(r11, Control.record));
  asm.mov(rax, ptr(r10, CaseRecord.script));
  asm.mov(ptr(r11, Control.script), rax);
  asm.mov(rax, ptr(r11, Control.cursor));
  asm.mov(ptr(r10, CaseRecord.log), rax);
  asm.mov(rax, ptr(r10, CaseRecord.clock));
  asm.movImm64(rcx, clock);
  asm.mov(ptr(rcx), rax);
  asm.mov(rcx, gsAt(currentTask));
  asm.alu('xor', rax, rax);
  asm.mov(ptr(rcx, TaskStruct.rcuReadLockNesting), rax, 'and the trace depth');
  asm.mov(dword(ptr(rcx, TaskStruct.migrationDisabled)), rax.as(4));
  asm.mov(dword(gsAt(mightFaultSplats)), rax.as(4));
  asm.mov(gsAt(thunks), rax);
  asm.movImm64(rax, runCtx);
  asm.mov(ptr(rcx, TaskStruct.bpfCtx), rax);
  resetCallDepth(context, rax);
});

/** Nothing has been called since. */
function resetCallDepth({ asm, callDepth }: Context, scratch: Reg): void {
  if (callDepth === undefined) return;
  asm.movImm64(scratch, CALL_DEPTH);
  asm.mov(gsAt(callDepth), scratch);
}

/** What the caller has right above its return address; r10: CaseRecord. */
function leaveStackArgs({ asm }: Context, from: number): void {
  for (let i = 0; i < STACK_ARG_WORDS; i++) {
    asm.mov(rax, ptr(r10, from + 8 * i));
    asm.mov(ptr(rsp, 8 * i), rax);
  }
}

/** Known words where the image's frame will be. */
const fillStack = piece('fill', ({ asm }: Context) => {
  asm.lea(rdi, ptr(rsp, -FILLED_BYTES));
  asm.movImm32(rcx.as(4), FILLED_BYTES / 8);
  asm.movImm64(rax, FILL);
  asm.raw(CLD, 'cld');
  asm.raw(REP_STOSQ, 'rep stosq');
});

/** Argument registers and rax, and in r11 who is to be called; r10: CaseRecord. */
function loadArgs({ asm }: Context, from: number): void {
  ARG_REGS.forEach((reg, i) => {
    asm.mov(reg, ptr(r10, from + 8 * i));
  });
  asm.mov(rax, ptr(r10, CaseRecord.rax));
  asm.mov(r11, ptr(r10, CaseRecord.entry));
}

/** Leaves Control in r11, and rsp as the driver needs it, whatever the image did. */
const logReturn = piece('return', (context: Context) => {
  const { asm, control, clock, mightFaultSplats, thunks } = context;
  const at = (word: (typeof RETURN_WORDS)[number]) => ptr(r10, 8 * RETURN_WORDS.indexOf(word));
  asm.movImm64(r11, control);
  asm.mov(r10, ptr(r11, Control.cursor));
  asm.mov(at('rax'), rax);
  asm.mov(at('rsp'), rsp);
  asm.mov(at('rbx'), rbx);
  asm.mov(at('rbp'), rbp);
  asm.mov(at('r12'), r12);
  asm.mov(at('r13'), r13);
  asm.mov(at('r14'), r14);
  asm.mov(at('r15'), r15);
  asm.mov(rsp, ptr(r11, Control.rsp));
  asm.pushfq();
  asm.pop(rax);
  asm.alu('xor', rax, ptr(r11, Control.entered));
  asm.aluImm32('and', rax, ~ARITHMETIC_FLAGS);
  asm.mov(at('flags'), rax);
  asm.raw(CLD, 'cld');
  asm.movImm32(rax.as(4), EventKind.return);
  asm.mov(at('kind'), rax);
  asm.mov(rcx, gsAt(context.currentTask));
  asm.mov(rax, ptr(rcx, TaskStruct.rcuReadLockNesting));
  asm.mov(at('readers'), rax);
  asm.mov(rax.as(4), ptr(rcx, TaskStruct.migrationDisabled));
  asm.mov(at('migration'), rax);
  asm.mov(rax, ptr(rcx, TaskStruct.bpfCtx));
  asm.mov(at('runCtx'), rax);
  logCallDepth(context, rax, at('callDepth'));
  asm.mov(rax, gsAt(thunks));
  asm.mov(at('thunks'), rax);
  asm.mov(rcx, ptr(r11, Control.record));
  asm.mov(rcx, ptr(rcx, CaseRecord.references));
  asm.mov(rax, gsPtr(rcx));
  asm.mov(at('references'), rax);
  asm.mov(rax.as(4), gsAt(mightFaultSplats));
  asm.mov(at('splats'), rax);
  asm.movImm64(rcx, clock);
  asm.mov(rax, ptr(rcx));
  asm.mov(at('clock'), rax);
  asm.aluImm32('add', qword(ptr(r11, Control.cursor)), 8 * RETURN_WORDS.length);
});

function launcher(context: Context, name: string, behind: string): void {
  piece(name, (within: Context) => {
    const { asm, control } = within;
    here(within, name);
    asm.movImm64(r11, control);
    asm.mov(r11, ptr(r11, Control.record));
    asm.mov(r11, ptr(r11, CaseRecord.image));
    asm.callIndirect(r11);
    here(within, behind);
    asm.movImm64(r10, addrAdd(asm.origin, asm.offset));
    logCallee(within, EventKind.body);
    reply(within, CaseRecord.bodyReply);
  })(context);
}

/** Bytes of a launcher up to its return address. */
const LAUNCHER_BYTES = 20;

/** Goes on until a launcher's return address, less a call, has an even number of bits in its lowest byte. */
const otherParity = piece('other parity', ({ asm }: Context) => {
  const isOdd = (byte: number): boolean =>
    [...byte.toString(2)].filter((bit) => bit === '1').length % 2 === 1;
  const site = (): number => (Number(asm.origin & 0xffn) + asm.offset + LAUNCHER_BYTES - SITE_BYTES) & 0xff;
  while (isOdd(site())) asm.int3();
});

const original = piece('original', (context: Context) => {
  here(context, 'original');
  logCallee(context, EventKind.original);
  reply(context, CaseRecord.originalReply);
});

/** Answers what the case says. */
function reply(context: Context, field: number): void {
  const { asm, control } = context;
  asm.movImm64(r11, control);
  asm.mov(r11, ptr(r11, Control.record));
  asm.mov(rax, ptr(r11, field));
  clobber(context, SCRATCH);
  asm.ret();
}

const program = piece('program', (context: Context) => {
  const { asm, control } = context;
  const special = asm.label('special');
  const done = asm.label('done');
  here(context, 'program');
  logCallee(context, EventKind.program);
  asm.mov(r10, ptr(r11, calleeOffset('runCtx')));
  asm.mov(r10, ptr(r10));
  asm.mov(ptr(r11, 8 * PREFIX_WORDS), r10, 'cookie');
  asm.mov(r8, rdi, 'ctx');
  asm.movImm64(r10, control);
  asm.mov(rdx, ptr(r10, Control.record));
  asm.mov(rsi, ptr(rdx, CaseRecord.ctxFrom));
  asm.alu('add', rsi, rdi);
  asm.lea(rdi, ptr(r11, 8 * (PREFIX_WORDS + PROGRAM_WORDS.length)));
  asm.mov(rcx, ptr(rdx, CaseRecord.ctxWords));
  asm.raw(CLD, 'cld');
  asm.raw(REP_MOVSQ, 'rep movsq');
  asm.mov(ptr(r10, Control.cursor), rdi);
  asm.mov(r9, ptr(r10, Control.script));
  asm.aluImm8('add', qword(ptr(r10, Control.script)), Script.size);
  asm.testImm(dword(ptr(r9, Script.deeds)), -1);
  asm.jccNear('ne', special);
  asm.bind(done);
  asm.mov(rax, ptr(r9, Script.reply));
  clobber(context, SCRATCH);
  asm.ret();
  asm.bind(special);
  deeds(context);
  asm.jmpNear(done);
});

/** What is out of the ordinary; r8: ctx, r9: Script entry, which it keeps. */
const deeds = piece('deeds', (context: Context) => {
  const { asm } = context;
  const skip = (deed: number): Label => {
    const label = asm.label('not this');
    asm.testImm(dword(ptr(r9, Script.deeds)), deed);
    asm.jccNear('e', label);
    return label;
  };
  const noWrite = skip(ScriptDeed.write);
  asm.alu('add', r8, ptr(r9, Script.writeOffset));
  asm.mov(rax, ptr(r9, Script.writeValue));
  asm.mov(ptr(r8), rax);
  asm.bind(noWrite);
  const noNest = skip(ScriptDeed.nest);
  nest(context);
  asm.bind(noNest);
  const noFault = skip(ScriptDeed.fault);
  asm.alu('xor', rcx, rcx);
  asm.mov(rcx, ptr(rcx, Number(FAULT_ADDRESS)));
  asm.bind(noFault);
});

/** Calls the traced function. */
const nest = piece('nest', (context: Context) => {
  const { asm, control } = context;
  const at = (word: (typeof NESTED_WORDS)[number]) => ptr(r10, 8 * NESTED_WORDS.indexOf(word));
  asm.push(r9);
  for (const reg of SAVED_REGS) asm.push(reg);
  asm.aluImm8('sub', rsp, 8 * STACK_ARG_WORDS);
  asm.movImm64(r10, control);
  asm.mov(r10, ptr(r10, Control.record));
  leaveStackArgs(context, CaseRecord.innerStackArgs);
  fillStack(context);
  loadArgs(context, CaseRecord.innerArgs);
  asm.callIndirect(r11);
  here(context, 'nestedReturn');
  asm.movImm64(r11, control);
  asm.mov(r10, ptr(r11, Control.cursor));
  asm.mov(at('rax'), rax);
  asm.mov(at('rsp'), rsp);
  asm.movImm32(rax.as(4), EventKind.nested);
  asm.mov(at('kind'), rax);
  asm.aluImm8('add', rsp, 8 * STACK_ARG_WORDS);
  asm.alu('xor', rax, rax);
  for (const reg of SAVED_REGS.toReversed()) {
    asm.pop(rcx);
    asm.alu('xor', rcx, reg);
    asm.alu('or', rax, rcx);
    asm.alu('xor', reg, rcx, 'as it was');
  }
  asm.mov(at('changed'), rax);
  asm.aluImm8('add', qword(ptr(r11, Control.cursor)), 8 * NESTED_WORDS.length);
  asm.pop(r9);
});

const value = piece('value', (context: Context) => {
  here(context, 'value');
  forward(context, EventKind.value, SCRATCH);
});

const nothing = piece('nothing', (context: Context) => {
  here(context, 'nothing');
  forward(context, EventKind.nothing, [rax, ...SCRATCH]);
});

/** Calls the real function, whose address is in rax, and logs what it returned. */
function forward(context: Context, kind: EventKind, clobbered: readonly Reg[]): void {
  const { asm, control } = context;
  logCallee(context, kind);
  asm.callIndirect(rax);
  if (kind === EventKind.value) {
    asm.movImm64(r11, control);
    asm.mov(r11, ptr(r11, Control.cursor));
    asm.mov(ptr(r11, -8), rax);
  }
  clobber(context, clobbered);
  asm.ret();
}

/**
 * Writes the record of a callee and steps over it, except for a program's, which goes on behind the words
 * written here. Leaves the record's address in r11 and changes r10 besides. r10: who was called.
 */
function logCallee(context: Context, kind: EventKind): void {
  const { asm, control, currentTask } = context;
  const at = (word: Parameters<typeof calleeOffset>[0]) => ptr(r11, calleeOffset(word));
  asm.movImm64(r11, control);
  asm.mov(r11, ptr(r11, Control.cursor));
  asm.mov(at('who'), r10);
  asm.movImm32(r10.as(4), kind);
  asm.mov(at('kind'), r10);
  asm.mov(at('rdi'), rdi);
  asm.mov(at('rsi'), rsi);
  asm.mov(at('rdx'), rdx);
  asm.mov(at('rsp'), rsp);
  asm.mov(at('rbp'), rbp);
  if (kind === EventKind.body) asm.alu('xor', r10, r10);
  else asm.mov(r10, ptr(rbp));
  asm.mov(at('savedRbp'), r10);
  asm.mov(r10, kind === EventKind.body ? ptr(rsp) : ptr(rbp, 8));
  asm.mov(at('returnAddress'), r10);
  asm.mov(r10, gsAt(currentTask));
  asm.mov(r10, ptr(r10, TaskStruct.rcuReadLockNesting));
  asm.mov(at('readers'), r10);
  asm.mov(r10, gsAt(currentTask));
  asm.mov(r10.as(4), ptr(r10, TaskStruct.migrationDisabled));
  asm.mov(at('migration'), r10);
  asm.mov(r10, gsAt(currentTask));
  asm.mov(r10, ptr(r10, TaskStruct.bpfCtx));
  asm.mov(at('runCtx'), r10);
  logCallDepth(context, r10, at('callDepth'));
  asm.pushfq();
  asm.movImm64(r10, control);
  asm.mov(r10, ptr(r10, Control.entered));
  asm.alu('xor', ptr(rsp), r10);
  asm.pop(r10);
  asm.aluImm32('and', r10, ~ARITHMETIC_FLAGS);
  asm.mov(at('flags'), r10);
  const isFunction = kind === EventKind.original || kind === EventKind.body;
  if (isFunction) {
    [rcx, r8, r9, rax].forEach((reg, i) => {
      asm.mov(ptr(r11, 8 * (PREFIX_WORDS + i)), reg);
    });
  }
  asm.movImm64(r10, control);
  if (kind !== EventKind.program) {
    asm.aluImm32('add', qword(ptr(r10, Control.cursor)), 8 * recordWords(kind));
  }
  if (isFunction && context.stackArgs) logStackArgs(context);
  asm.mov(r10, ptr(r10, Control.record));
  asm.mov(r10, ptr(r10, CaseRecord.references));
  asm.mov(r10, gsPtr(r10));
  asm.mov(at('references'), r10);
}

/** The counter of calls, which is put back. */
function logCallDepth(context: Context, scratch: Reg, to: Mem): void {
  const { asm, callDepth } = context;
  if (callDepth === undefined) {
    asm.movImm(qword(to), 0);
    return;
  }
  asm.mov(scratch, gsAt(callDepth));
  asm.mov(to, scratch);
  resetCallDepth(context, scratch);
}

/** Arguments on the stack, behind the rest of a function's record; r10: Control, r11: the record. */
function logStackArgs({ asm }: Context): void {
  asm.mov(rcx, ptr(r10, Control.record));
  asm.mov(rcx, ptr(rcx, CaseRecord.stackWords));
  asm.lea(rsi, ptr(rsp, 8));
  asm.lea(rdi, ptr(r11, 8 * (PREFIX_WORDS + FUNCTION_WORDS.length)));
  asm.raw(CLD, 'cld');
  asm.raw(REP_MOVSQ, 'rep movsq');
  asm.mov(ptr(r10, Control.cursor), rdi);
}

/**
 * Leaves in registers what the case says that callees leave, in each something else. Counts r11 last,
 * because it is the way there.
 */
function clobber({ asm, control }: Context, regs: readonly Reg[]): void {
  asm.movImm64(r11, control);
  asm.mov(r11, ptr(r11, Control.record));
  asm.mov(r11, ptr(r11, CaseRecord.garbage));
  for (const reg of regs) {
    if (reg !== r11) asm.lea(reg, ptr(r11, GARBAGE_STEP * (reg.num - rcx.num)));
  }
  asm.aluImm32('add', r11, GARBAGE_STEP * r11.num, 'and the flags');
}

const SITE_BYTES = 5;

/** Bytes that a stub takes at most, the two of an original together. */
export const STUB_BYTES = 64;

/** A stub: says who was called and goes on in a recorder. `real` is the function to forward to. */
export function stub(who: Kaddr, recorder: Kaddr, real?: Kaddr): Uint8Array {
  const asm = new Assembler(who, { record: false });
  emitStub({ asm, who, recorder, real });
  return asm.bytes();
}

/**
 * The original: whoever calls its first byte is told apart from who calls behind the 5 bytes of the site. Nobody gets
 * anywhere by calling into the middle of them.
 */
export function originalStub(address: Kaddr, recorder: Kaddr, endbr: boolean): Uint8Array {
  const asm = new Assembler(address, { record: false });
  const site = asm.label('site');
  piece('site', () => {
    if (endbr) asm.raw(ENDBR);
    const behind = asm.offset + SITE_BYTES;
    asm.jmpShort(site);
    while (asm.offset < behind) asm.int3();
  })({ asm });
  emitStub({ asm, who: addrAdd(address, asm.offset), recorder, real: undefined });
  asm.bind(site);
  emitStub({ asm, who: address, recorder, real: undefined });
  return asm.bytes();
}

/** The return thunk: counts who comes by. */
export function thunkStub(address: Kaddr, counter: number): Uint8Array {
  const asm = new Assembler(address, { record: false });
  piece('thunk', () => {
    asm.inc(qword(gsAt(counter)));
    asm.ret();
  })({ asm });
  return asm.bytes();
}

interface Stub {
  readonly asm: Assembler;
  readonly who: Kaddr;
  readonly recorder: Kaddr;
  readonly real: Kaddr | undefined;
}

const emitStub = piece('stub', ({ asm, who, recorder, real }: Stub) => {
  asm.movImm64(r10, who);
  if (real !== undefined) asm.movImm64(rax, real);
  asm.movImm64(r11, recorder);
  asm.jmpIndirect(r11);
});
