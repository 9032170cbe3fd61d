/*
 * What attaching and detaching a program costs while other trampolines are attached, with grace periods and
 * freeing of the image. The others are live: each function has an image of its own that calls a program of
 * its own. The cost must not grow with their number.
 */

import process from 'node:process';
import { createMachine } from '../../emu/index.ts';
import { Assembler, NOP5, piece, rax } from '../../jit/index.ts';
import { addrAdd, Bug, type Kaddr } from '../../lib/index.ts';
import type { FuncModel } from '../../obj/index.ts';
import { BpfProg, Kernel, KModule, linkProg, type Trampoline, unlinkProg } from '../../tramp/index.ts';
import { type Time, timeOf } from './rounds.ts';

/** Bytes from one function to the next. */
const STRIDE = 16;
/** Functions of one module. */
const PER_MODULE = 50;

const MODEL: FuncModel = {
  name: 'f',
  args: ['a', 'b'].map((name) => ({ name, type: 'long', sizeBytes: 8, signed: true, pointer: false })),
  ret: { type: 'long', sizeBytes: 8, signed: true, pointer: false },
};

type Ctx = { readonly asm: Assembler };

function assemble(at: Kaddr, emit: (asm: Assembler) => void): Uint8Array {
  const asm = new Assembler(at);
  piece('harness', ({ asm: inner }: Ctx) => emit(inner))({ asm });
  return asm.bytes();
}

/** Loads modules of functions that can be traced. */
function loadFunctions(kernel: Kernel, count: number): Kaddr[] {
  const { machine } = kernel;
  const functions: Kaddr[] = [];
  for (let first = 0; first < count; first += PER_MODULE) {
    const name = `module${first}`;
    const text = machine.memory.allocText(PER_MODULE * STRIDE, name);
    const places = Array.from({ length: Math.min(PER_MODULE, count - first) }, (_, i) =>
      addrAdd(text, i * STRIDE),
    );
    for (const place of places) {
      const bytes = assemble(place, (asm) => {
        asm.raw(NOP5);
        asm.movImm(rax, 0);
        asm.ret();
      });
      machine.patchText(place, bytes);
    }
    const symbols = places.map((address, i) => {
      return { name: `f${first + i}`, address, sizeBytes: STRIDE, binding: 'global', type: 'func' } as const;
    });
    new KModule(kernel, {
      name,
      text: [{ address: text, sizeBytes: PER_MODULE * STRIDE }],
      symbols,
      functions: symbols,
      sites: symbols.map((symbol) => ({
        address: symbol.address,
        function: symbol.name,
        offset: 0,
        kind: 'nop',
      })),
      origin: 'module',
      free: () => machine.memory.freeText(text),
    });
    functions.push(...places);
  }
  return functions;
}

/** What attaching and detaching cost beside a number of live trampolines. */
export interface AttachCost {
  readonly others: number;
  readonly attach: Time;
  readonly detach: Time;
  /** Resident memory of the process that each of the others took, bytes; undefined where there are few. */
  readonly bytesPerTrampoline: number | undefined;
}

/** From so many on, what a trampoline takes is told apart from what the machine takes. */
const ENOUGH = 1000;

/** @param samples attaches and detaches; the first quarter of them warms up */
export async function attachCost(others: number, samples: number): Promise<AttachCost> {
  const machine = await createMachine();
  try {
    const kernel = new Kernel(machine, { revision: 'v5.15' });
    const functions = loadFunctions(kernel, others + 1);
    const code = machine.memory.allocText(STRIDE, 'program');
    const bytes = assemble(code, (asm) => {
      asm.movImm(rax, 0);
      asm.ret();
    });
    machine.patchText(code, bytes);

    const get = (index: number): Trampoline => {
      const addr = functions[index] as Kaddr;
      return kernel.trampolines.get(kernel, BigInt(index + 1), { addr, model: MODEL });
    };
    const before = process.memoryUsage.rss();
    for (let i = 1; i <= others; i++) {
      linkProg(kernel, new BpfProg(kernel, { name: `p${i}`, kind: 'fexit', bpfFunc: code }), get(i));
    }
    const grown = process.memoryUsage.rss() - before;
    if (kernel.images.size !== others) throw new Bug(`${kernel.images.size} images are live, not ${others}`);

    const tr = get(0);
    const prog = new BpfProg(kernel, { name: 'measured', kind: 'fexit', bpfFunc: code });
    const attach: number[] = [];
    const detach: number[] = [];
    for (let i = 0; i < samples; i++) {
      const start = process.hrtime.bigint();
      linkProg(kernel, prog, tr);
      kernel.settle();
      const between = process.hrtime.bigint();
      unlinkProg(kernel, prog, tr);
      kernel.settle();
      const end = process.hrtime.bigint();
      attach.push(Number(between - start));
      detach.push(Number(end - between));
    }
    const warm = samples / 4;
    return {
      others,
      attach: timeOf(attach.slice(warm)),
      detach: timeOf(detach.slice(warm)),
      bytesPerTrampoline: others < ENOUGH ? undefined : Math.round(grown / others),
    };
  } finally {
    machine.close();
  }
}
