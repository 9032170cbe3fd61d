/*
 * What attaching and detaching a program costs while other trampolines are attached: `npm run bench:attach`.
 * The others are live: each function has an image of its own that calls a program of its own. The cost
 * must not grow with their number. Nothing asserts a time.
 */

import { cpus } from 'node:os';
import { createMachine } from '../emu/index.ts';
import { Assembler, NOP5, piece, rax } from '../jit/index.ts';
import { addrAdd, type Kaddr } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import { BpfProg, Kernel, KModule, linkProg, type Trampoline, unlinkProg } from '../tramp/index.ts';

const COUNTS: readonly number[] = [10, 1_000, 20_000];
/** Bytes from one function to the next. */
const STRIDE = 16;
/** Functions of one module. */
const PER_MODULE = 50;
const SAMPLES = 20_000;

const MODEL: FuncModel = {
  name: 'f',
  args: ['a', 'b'].map((name) => ({ name, type: 'long', sizeBytes: 8, signed: true, pointer: false })),
  ret: { type: 'long', sizeBytes: 8, signed: true, pointer: false },
};

type Ctx = { readonly asm: Assembler };

function assemble(at: Kaddr, emit: (asm: Assembler) => void): Uint8Array {
  const asm = new Assembler(at);
  piece('bench', ({ asm: inner }: Ctx) => emit(inner))({ asm });
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

interface Costs {
  readonly attach: number;
  readonly detach: number;
}

/** Median microseconds with `others` trampolines attached. */
async function measure(others: number): Promise<Costs> {
  const machine = await createMachine();
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
  for (let i = 1; i <= others; i++) {
    linkProg(kernel, new BpfProg(kernel, { name: `p${i}`, kind: 'fexit', bpfFunc: code }), get(i));
  }
  if (kernel.images.size !== others)
    throw new RangeError(`${kernel.images.size} images are live, not ${others}`);

  const tr = get(0);
  const prog = new BpfProg(kernel, { name: 'measured', kind: 'fexit', bpfFunc: code });
  const attach: number[] = [];
  const detach: number[] = [];
  for (let i = 0; i < SAMPLES; i++) {
    const start = process.hrtime.bigint();
    linkProg(kernel, prog, tr);
    kernel.settle();
    const between = process.hrtime.bigint();
    unlinkProg(kernel, prog, tr);
    kernel.settle();
    const end = process.hrtime.bigint();
    attach.push(Number(between - start) / 1000);
    detach.push(Number(end - between) / 1000);
  }
  machine.close();
  return { attach: median(attach.slice(SAMPLES / 4)), detach: median(detach.slice(SAMPLES / 4)) };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] as number;
}

const processor = cpus();
console.log(`${processor[0]?.model}, ${processor.length} CPUs, node ${process.version}`);
console.log(
  `median microseconds of ${SAMPLES} attaches and detaches, with grace periods and freeing of the image\n`,
);
console.log('    others     attach     detach    attach, detach over the first row');
// once to warm up
await measure(COUNTS[0] as number);
let first: Costs | undefined;
for (const others of COUNTS) {
  const costs = await measure(others);
  first ??= costs;
  const ratios = [costs.attach / first.attach, costs.detach / first.detach].map((ratio) => ratio.toFixed(2));
  const cells = [String(others), costs.attach.toFixed(1), costs.detach.toFixed(1)];
  console.log(`${cells.map((cell) => cell.padStart(10)).join(' ')}    ${ratios.join(', ')}`);
}
