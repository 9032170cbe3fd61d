/*
 * The guest code around an image: who calls it, and what it calls.
 *
 *   driver ──call──▶ launcher ──call──▶ image ──call──▶ stubs at the golden addresses
 *     ▲                 │ behind             │                │
 *     │◀──────ret───────┘◀──ret──────────────┤                └──▶ a recorder: one event in the log
 *     │◀──────────────── ret, SKIP_FRAME ────┘
 *
 * The launcher stands where a traced function's call of its image stands: an image that returns into the
 * traced function comes back behind the launcher's call. Whoever is called overwrites every register that
 * a callee may overwrite.
 */

import {
  Assembler,
  gsAt,
  type Label,
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
} from '../../../jit/index.ts';
import { addrAdd, Bug, type Kaddr } from '../../../lib/index.ts';
import {
  CALLER_BYTES,
  CTX_FROM,
  CTX_WORDS,
  EVENT_BYTES,
  EVENT_CTX,
  EVENT_REPLY,
  EventField,
  Frame,
} from './layout.ts';

/** Flags that no arithmetic touches and that ring 0 may set at will: AC and ID. */
const CONTROL_FLAGS = (1 << 18) | (1 << 21);

const ARG_REGS = [rdi, rsi, rdx, rcx, r8, r9];
const SAVED_REGS = [rbx, rbp, r12, r13, r14, r15];
const SCRATCH = [rcx, rdx, rsi, rdi, r8, r9, r10, r11];

/** Addresses of the guest code. */
export interface Guest {
  readonly driver: Kaddr;
  /** Return address of the driver's call of the launcher. */
  readonly driverReturn: Kaddr;
  /** Return address of the launcher's call of the image. */
  readonly behind: Kaddr;
  /** Where stubs go on, by what they stand for. */
  readonly recorders: Readonly<Record<Recorder, Kaddr>>;
  readonly bytes: Uint8Array;
}

/** `value` and `nothing`: a kernel function that returns something or not. */
export type Recorder = 'program' | 'original' | 'value' | 'nothing';

interface Context {
  readonly asm: Assembler;
  /** Address of the Frame. */
  readonly frame: Kaddr;
  /** Per-CPU offset of `current`. */
  readonly currentTask: number;
  readonly original: Label;
}

/** Assembles all of it for `origin`. */
export function guestCode(origin: Kaddr, frame: Kaddr, currentTask: number): Guest {
  const asm = new Assembler(origin);
  const context: Context = { asm, frame, currentTask, original: asm.label('original') };
  driver(context);
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
    driver: at('driver'),
    driverReturn: at('driverReturn'),
    behind: at('behind'),
    recorders: {
      program: at('program'),
      original: at('original'),
      value: at('value'),
      nothing: at('nothing'),
    },
    bytes,
  };
}

const driver = piece('driver', ({ asm, frame, original }: Context) => {
  const launcher = asm.label('launcher');
  asm.symbol('driver', asm.offset);
  asm.aluImm32('sub', rsp, CALLER_BYTES, "the caller's own words");
  asm.movImm64(r11, frame);
  asm.pushfq();
  asm.pop(rax);
  asm.mov(ptr(r11, Frame.ownFlags), rax);
  asm.aluImm32('or', rax, CONTROL_FLAGS);
  asm.push(rax);
  asm.popfq();
  asm.pushfq();
  asm.pop(rax);
  asm.mov(ptr(r11, Frame.flagsBefore), rax);
  asm.mov(ptr(r11, Frame.rspBefore), rsp);
  SAVED_REGS.forEach((reg, i) => {
    asm.mov(reg, ptr(r11, Frame.saved + 8 * i));
  });
  ARG_REGS.forEach((reg, i) => {
    asm.mov(reg, ptr(r11, Frame.args + 8 * i));
  });
  asm.callLabel(launcher);
  asm.symbol('driverReturn', asm.offset);
  asm.movImm64(r11, frame);
  asm.mov(ptr(r11, Frame.rspAfter), rsp);
  asm.mov(rsp, ptr(r11, Frame.rspBefore), 'whatever the image did, report it');
  asm.mov(ptr(r11, Frame.raxAfter), rax);
  asm.pushfq();
  asm.pop(rax);
  asm.mov(ptr(r11, Frame.flagsAfter), rax);
  SAVED_REGS.forEach((reg, i) => {
    asm.mov(ptr(r11, Frame.savedAfter + 8 * i), reg);
  });
  asm.mov(rax, ptr(r11, Frame.ownFlags));
  asm.push(rax);
  asm.popfq();
  asm.aluImm32('add', rsp, CALLER_BYTES);
  asm.ret();

  asm.bind(launcher);
  asm.movImm64(r11, frame);
  asm.mov(r11, ptr(r11, Frame.image));
  asm.callIndirect(r11);
  asm.symbol('behind', asm.offset);
  asm.movImm64(r10, addrAdd(asm.origin, asm.offset));
  asm.jmpNear(original, 'the rest of the traced function');
});

const program = piece('program', (context: Context) => {
  const { asm } = context;
  asm.symbol('program', asm.offset);
  log(context);
  for (let i = 0; i < CTX_WORDS; i++) {
    asm.mov(rcx, ptr(rdi, 8 * (CTX_FROM + i)));
    asm.mov(ptr(r11, EVENT_CTX + 8 * i), rcx);
  }
  asm.mov(rax, ptr(r11, EVENT_REPLY));
  clobber(asm, SCRATCH);
  asm.ret();
});

const original = piece('original', (context: Context) => {
  const { asm } = context;
  asm.symbol('original', asm.offset);
  asm.bind(context.original);
  log(context);
  asm.mov(rax, ptr(r11, EVENT_REPLY));
  clobber(asm, SCRATCH);
  asm.ret();
});

const value = piece('value', (context: Context) => {
  context.asm.symbol('value', context.asm.offset);
  forward(context, SCRATCH);
});

const nothing = piece('nothing', (context: Context) => {
  context.asm.symbol('nothing', context.asm.offset);
  forward(context, [rax, ...SCRATCH]);
});

/** Calls the real function, whose address is in rax, and logs what it returned. */
function forward(context: Context, clobbered: readonly Reg[]): void {
  const { asm, frame } = context;
  log(context);
  asm.callIndirect(rax);
  asm.movImm64(r11, frame);
  asm.mov(r11, ptr(r11, Frame.cursor));
  asm.mov(ptr(r11, EventField.result - EVENT_BYTES), rax);
  clobber(asm, clobbered);
  asm.ret();
}

/** Fills in the next record and leaves its address in r11; keeps rdi, rsi, rdx, r8, r9 and rax. Who: r10. */
function log({ asm, frame, currentTask }: Context): void {
  asm.movImm64(r11, frame);
  asm.mov(r11, ptr(r11, Frame.cursor));
  asm.mov(ptr(r11, EventField.who), r10);
  for (const [field, reg] of [
    ['rdi', rdi],
    ['rsi', rsi],
    ['rdx', rdx],
    ['rcx', rcx],
    ['r8', r8],
    ['r9', r9],
    ['rsp', rsp],
    ['rax', rax],
  ] as const) {
    asm.mov(ptr(r11, EventField[field]), reg);
  }
  asm.mov(rcx, gsAt(currentTask));
  for (const [field, depth] of [
    ['rcu', TaskStruct.rcuReadLockNesting],
    ['trace', TaskStruct.trcReaderNesting],
    ['migration', TaskStruct.migrationDisabled],
  ] as const) {
    asm.mov(r10.as(4), ptr(rcx, depth));
    asm.mov(ptr(r11, EventField[field]), r10);
  }
  asm.movImm64(r10, frame);
  asm.aluImm32('add', qword(ptr(r10, Frame.cursor)), EVENT_BYTES);
}

/** Even values, so that none of them has a bit in common with the start time 1. */
function clobber(asm: Assembler, regs: readonly Reg[]): void {
  for (const reg of regs) asm.movImm64(reg, 0xdead_0000_c10b_0000n + 2n * BigInt(reg.num));
  asm.alu('cmp', rcx, rdx, 'and the flags');
}

/** A stub: says who was called and goes on in a recorder. `real` is the function to forward to. */
export function stub(who: Kaddr, recorder: Kaddr, real?: Kaddr): Uint8Array {
  const asm = new Assembler(who, { record: false });
  emitStub({ asm, who, recorder, real });
  return asm.bytes();
}

/** The original: whoever calls its first byte is told apart from who calls behind the 5 bytes of the site. */
export function originalStub(address: Kaddr, recorder: Kaddr): Uint8Array {
  const asm = new Assembler(address, { record: false });
  const site = asm.label('site');
  piece('site', () => asm.jmpNear(site))({ asm });
  emitStub({ asm, who: addrAdd(address, asm.offset), recorder, real: undefined });
  asm.bind(site);
  emitStub({ asm, who: address, recorder, real: undefined });
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
