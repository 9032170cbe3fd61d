/*
 * What a traced call costs through the library, against the same bytes on a bare engine:
 * `npm run bench:call`. The ratio within one run is the figure; nothing asserts a time.
 *
 * bare      uc_reg_write per register, return address, uc_emu_start, uc_reg_read of rax: no instruction
 *           count, no step limit, no fault decoding
 * library   Vcpu.call: exact instruction count and step limit on
 */

import { cpus } from 'node:os';
import koffi from 'koffi';
import { Bench } from 'tinybench';
import { openUnicorn } from '../emu/unicorn/library.ts';
import { createLab, type Lab } from '../lab/index.ts';
import type { Kaddr } from '../lib/index.ts';

/** npm runs scripts in the project's folder. */
const TARGET = 'test/fixtures/demo.o';

/** Calls per sample. */
const BATCH = 200;
const ROUNDS = 7;

/** cpu_is_awake(int): six instructions, and an fexit program around them, so nearly all is the image. */
const FUNCTION = 'cpu_is_awake';
const ARGS = [1n];

async function tracedLab(): Promise<{ lab: Lab; entry: Kaddr }> {
  const lab = await createLab({ revision: 'v5.15' });
  const { module } = lab.load(TARGET);
  const entry = module.symbol(FUNCTION)?.address;
  if (entry === undefined) throw new RangeError(FUNCTION);
  lab.attach('fentry', FUNCTION, await lab.assemble('nothing', 'xor eax, eax\nret'));
  return { lab, entry };
}

/** A bare engine with copies of everything that the traced call touches. */
function bareEngine(lab: Lab, entry: Kaddr): () => bigint {
  const uc = openUnicorn();
  const open = uc.func('int uc_open(int arch, int mode, _Out_ void **uc)');
  const map = uc.func('int uc_mem_map(void *uc, int64_t address, size_t size, uint32_t perms)');
  const write = uc.func('int uc_mem_write(void *uc, int64_t address, void *bytes, size_t size)');
  const start = uc.func(
    'int uc_emu_start(void *uc, int64_t begin, int64_t until, uint64_t timeout, size_t count)',
  );
  const regWrite = uc.func('int uc_reg_write(void *uc, int id, void *value)');
  const regRead = uc.func('int uc_reg_read(void *uc, int id, void *value)');
  const out: [unknown] = [null];
  open(4, 8, out);
  const [engine] = out;

  const { memory, percpu, cpus: vcpus } = lab.machine;
  const perms = { r: 1, rw: 3, rx: 5 };
  const mapped = new Set<bigint>();
  const copy = (address: Kaddr): void => {
    const region = memory.regionAt(address);
    if (region === undefined) return;
    const page = address & -4096n;
    if (!mapped.has(page)) map(engine, BigInt.asIntN(64, page), 4096, perms[region.perms]);
    mapped.add(page);
    // what of the region lies in this page
    const from = region.start > page ? region.start : (page as Kaddr);
    const end = region.start + BigInt(region.sizeBytes);
    const length = Number((end < page + 4096n ? end : page + 4096n) - from);
    write(engine, BigInt.asIntN(64, from), memory.bytes(from, length), length);
  };
  // every page that one stepped call touches: its code, and what its registers point at
  const vcpu = vcpus[0];
  if (vcpu === undefined) throw new RangeError('no CPU');
  vcpu.begin(entry, ARGS);
  const touched = new Set<bigint>([vcpu.stack.top - 8n, percpu.base(0), lab.machine.current(0)]);
  do {
    for (const name of ['rip', 'rsp', 'rdi', 'rax', 'rcx', 'rdx'] as const) touched.add(vcpu.regs.get(name));
  } while (vcpu.step().reason === 'steps');
  const exit = memory.readU64((vcpu.stack.top - 8n) as Kaddr);
  for (const address of [...touched, exit]) copy(address as Kaddr);
  for (const { address } of lab.kernel.modules.flatMap(({ contents }) => contents.symbols)) copy(address);

  const RAX = 35;
  const RDI = 39;
  const RSP = 44;
  const GS_BASE = 251;
  const word = Buffer.alloc(8);
  word.writeBigUInt64LE(percpu.base(0));
  regWrite(engine, GS_BASE, word);
  const rsp = vcpu.stack.top - 8n;
  const rspWord = Buffer.alloc(8);
  rspWord.writeBigUInt64LE(rsp);
  const exitWord = Buffer.alloc(8);
  exitWord.writeBigUInt64LE(exit);
  const slot = Number(BigInt.asIntN(64, rsp));
  const begin = Number(BigInt.asIntN(64, entry));
  return () => {
    word.writeBigUInt64LE(ARGS[0] as bigint);
    regWrite(engine, RDI, word);
    regWrite(engine, RSP, rspWord);
    write(engine, slot, exitWord, 8);
    const rc = start(engine, begin, 0, 0, 0) as number;
    if (rc !== 0) throw new RangeError(`uc_emu_start: ${rc}`);
    regRead(engine, RAX, word);
    return word.readBigUInt64LE();
  };
}

const { lab, entry } = await tracedLab();
const bare = bareEngine(lab, entry);
const vcpu = lab.machine.cpus[0];
if (vcpu === undefined) throw new RangeError('no CPU');
const { ret, instructions } = vcpu.call(entry, ARGS);
if (bare() !== ret) throw new RangeError('the bare engine computes something else');

const ratios: number[] = [];
const medians: [number, number][] = [];
for (let round = 0; round < ROUNDS; round++) {
  const bench = new Bench({ time: 300, warmupTime: 100 })
    .add('bare', () => {
      for (let i = 0; i < BATCH; i++) bare();
    })
    .add('library', () => {
      for (let i = 0; i < BATCH; i++) vcpu.call(entry, ARGS);
    });
  await bench.run();
  const [a, b] = bench.tasks.map(({ result }) => {
    if (!('latency' in result)) throw new RangeError('no result');
    return (result.latency.p50 * 1e6) / BATCH;
  });
  if (a === undefined || b === undefined) throw new RangeError('no result');
  medians.push([a, b]);
  ratios.push(b / a);
}
ratios.sort((a, b) => a - b);
const [processor] = cpus();
console.log(
  `${processor?.model.trim()}, ${cpus().length} cores, node ${process.version}, ${lab.machine.engine}, koffi ${koffi.version}`,
);
console.log(
  `${FUNCTION} with one fentry program, ${instructions} instructions; ${ROUNDS} rounds of both, medians`,
);
for (const [a, b] of medians)
  console.log(`  bare ${a.toFixed(0)} ns   library ${b.toFixed(0)} ns   ratio ${(b / a).toFixed(3)}`);
console.log(`median ratio ${(ratios[ROUNDS >> 1] as number).toFixed(3)}`);
lab.close();
