/*
 * Every function of wide.c, traced in every way with the boundary values of its types: what the programs
 * see, and that the function gives what it gives untraced.
 */

import { describe, expect, test } from 'vitest';
import type { Lab, ProgramCode } from '../../lab/index.ts';
import { atWidth } from '../../lab/values.ts';
import { kaddr } from '../../lib/index.ts';
import type { ArgModel, FuncModel } from '../../obj/index.ts';
import { fixture, freshLab, labWith, symbolAddress } from './support.ts';

const REVISIONS = ['v5.13', 'v5.15'] as const;

/** Which programs a function is traced by; the kinds of its mixes. */
const MIXES = [
  ['fentry'],
  ['fexit'],
  ['fmod_ret'],
  ['fentry', 'fexit'],
  ['fmod_ret', 'fexit'],
  ['fentry', 'fmod_ret', 'fexit'],
  ['fentry', 'fentry', 'fmod_ret', 'fmod_ret', 'fexit', 'fexit'],
] as const;

/** The values at the edges of a type. */
function edges({ sizeBytes, signed, type }: ArgModel): readonly bigint[] {
  if (type === 'bool' || type === '_Bool') return [0n, 1n];
  if (type === 'enum gear') return [0n, 1n, 2n, 3n];
  const bits = BigInt(8 * sizeBytes);
  const half = 1n << (bits - 1n);
  return signed ? [-half, -1n, 0n, 1n, half - 1n] : [0n, 1n, half - 1n, half, 2n * half - 1n];
}

/** Each argument at each of its edges while the others stay apart from each other; then all at once. */
function* argumentLists(model: FuncModel): Generator<bigint[]> {
  const base = model.args.map((arg, i) => {
    const all = edges(arg);
    return arg.sizeBytes > 1 ? BigInt(0x11 * (i + 1)) : (all[i % all.length] ?? 0n);
  });
  yield base;
  for (const [i, arg] of model.args.entries()) {
    for (const value of edges(arg)) yield base.with(i, value);
  }
  for (let edge = 0; edge < 5; edge++) {
    yield model.args.map((arg) => edges(arg)[edge % edges(arg).length] ?? 0n);
  }
}

/** Programs that copy their context, as many slots as there are, and count their runs. */
async function recorders(lab: Lab): Promise<Recorders> {
  const { memory } = lab.machine;
  const at = memory.kmalloc(8 * 8);
  const runsAt = kaddr(at + 56n);
  const codes: ProgramCode[] = [];
  for (let slots = 0; slots <= 7; slots++) {
    const copies = Array.from(
      { length: slots },
      (_, i) => `mov rax, [rdi + ${8 * i}]\nmov [r11 + ${8 * i}], rax`,
    );
    const text = [`movabs r11, ${at}`, ...copies, 'inc qword ptr [r11 + 56]', 'xor eax, eax', 'ret'];
    codes.push(await lab.assemble(`record${slots}`, text.join('\n')));
  }
  return {
    of: ({ args, ret }) => codes[args.length + (ret.sizeBytes > 0 ? 1 : 0)] as ProgramCode,
    slot: (index) => memory.readU64(kaddr(at + 8n * BigInt(index))),
    takeRuns: () => {
      const runs = memory.readU64(runsAt);
      memory.writeU64(runsAt, 0n);
      return runs;
    },
  };
}

/** A program that does nothing. */
function nothing(lab: Lab): Promise<ProgramCode> {
  return lab.assemble('nothing', 'xor eax, eax\nret');
}

interface Recorders {
  /** The program for a function. */
  readonly of: (model: FuncModel) => ProgramCode;
  /** A slot as the program that ran last saw it. */
  readonly slot: (index: number) => bigint;
  /** Runs since the last time. */
  readonly takeRuns: () => bigint;
}

/** Weights of the arguments in the sums of wide.c. */
const WEIGHTS = [1n, 3n, 5n, 7n, 11n, 13n];

/** What the C source says that the function gives; undefined where it is no weighted sum. */
function sum(name: string, { ret }: FuncModel, args: readonly bigint[]): bigint | undefined {
  const plain = /^([us]\d+)_args[1-6]$/.test(name);
  if (!plain && !/^mixed/.test(name)) return undefined;
  const total = args.reduce(
    (so, arg, i) => so + arg * (WEIGHTS[i] ?? 0n),
    plain && args.length === 1 ? 1n : 0n,
  );
  return atWidth(ret, total);
}

const LOOKS_AT_MEMORY = /^pointer_/;

describe.each(REVISIONS)('%s', (revision) => {
  test.each(MIXES.map((kinds) => [kinds.join(' + '), kinds] as const))(
    'every function, traced by %s',
    async (_title, kinds) => {
      const lab = await freshLab({ revision });
      const target = lab.load(fixture('wide.o'));
      const recorder = await recorders(lab);
      const names = target.module.contents.functions.map(({ name }) => name);
      expect(names).toHaveLength(9 + 8 * 6 + 3 + 2 + 1 + 2 + 4);

      let checked = 0;
      for (const name of names.filter((each) => !LOOKS_AT_MEMORY.test(each))) {
        const model = lab.model(name);
        const lists = [...argumentLists(model)];
        const untraced = lists.map((args) => lab.call(name, args));
        const attachments = kinds.map((kind) => lab.attach(kind, name, recorder.of(model)));
        for (const [i, args] of lists.entries()) {
          const { ret, fault } = lab.call(name, args);
          const what = `${name}(${args.join(', ')})`;
          expect(fault, what).toBeNull();
          expect(ret, what).toBe(untraced[i]?.ret);
          if (ret !== null) expect(ret, what).toBe(sum(name, model, args) ?? ret);
          expect(recorder.takeRuns(), what).toBe(BigInt(kinds.length));
          const seen = model.args.map((arg, at) => atWidth(arg, recorder.slot(at)));
          expect(seen, what).toEqual(model.args.map((arg, at) => atWidth(arg, args[at] ?? 0n)));
          // The last program to run is an fexit program, when there is one: it sees the result too.
          if (kinds.at(-1) === 'fexit' && ret !== null) {
            expect(atWidth(model.ret, recorder.slot(model.args.length)), what).toBe(ret);
          }
          checked++;
        }
        for (const attachment of attachments) attachment.detach();
      }
      expect(checked).toBeGreaterThan(1000);
    },
  );

  test('a void function leaves in memory what it was given', async () => {
    const { lab, target, probes } = await labWith('wide.o', { revision });
    for (const kind of ['fentry', 'fmod_ret', 'fexit'] as const) {
      lab.attach(kind, 'void_args3', await nothing(lab));
      lab.attach(kind, 'void_args6', probes.program('record_slots'));
    }
    const given = (): bigint[] => {
      const at = symbolAddress(target, 'void_seen');
      return [0n, 1n, 2n, 3n, 4n, 5n].map((i) => lab.machine.memory.readU64(kaddr(at + 8n * i)));
    };
    const big = (1n << 64n) - 1n;
    expect(lab.call('void_args6', [big, 2, 3, 4, 5, 6])).toMatchObject({ ret: null, fault: null });
    expect(given()).toEqual([big, 2n, 3n, 4n, 5n, 6n]);
    // b is an s16: the function extends the sign by itself, so the zero-extended reload does not show.
    expect(lab.call('void_args3', [255, -32768, big])).toMatchObject({ ret: null, fault: null });
    expect(given()).toEqual([255n, BigInt.asUintN(64, -32768n), big, 4n, 5n, 6n]);
  });

  test('pointers go through, to text, to structs, to functions that are traced themselves', async () => {
    const lab = await freshLab({ revision });
    const target = lab.load(fixture('wide.o'));
    const names = ['pointer_args2', 'pointer_result', 'pointer_write', 'pointer_call', 'u64_args2'];
    for (const name of names) {
      for (const kind of ['fentry', 'fmod_ret', 'fexit'] as const) {
        lab.attach(kind, name, await nothing(lab));
      }
    }
    const text = (value: string): { bytes: Uint8Array } => ({ bytes: Buffer.from(`${value}\0`) });
    expect(lab.call('pointer_args2', [text('trampoline'), text('p')]).ret).toBe(4n);

    const { memory } = lab.machine;
    const [first, second] = [memory.kmalloc(16), memory.kmalloc(16)];
    memory.writeU32(first, 7);
    memory.writeU64(kaddr(first + 8n), second);
    memory.writeU32(second, 0xffff_ffff);
    expect(lab.call('pointer_result', [first, 0xffff_ffff]).ret).toBe(second);
    expect(lab.call('pointer_result', [first, 8]).ret).toBe(0n);

    memory.writeU32(first, 40);
    expect(lab.call('pointer_write', [first, second, -41]).ret).toBe(0xffff_ffffn);
    expect([memory.readU32(first), memory.readU16(second)]).toEqual([0xffff_ffff, 0xffd7]);

    const { ret, seen } = lab.call('pointer_call', [symbolAddress(target, 'u64_args2'), 100, 10], {
      watch: true,
    });
    expect(ret).toBe(131n);
    expect(seen.map((run) => [run.target, run.kind])).toEqual([
      ['pointer_call', 'fentry'],
      ['pointer_call', 'fmod_ret'],
      ['u64_args2', 'fentry'],
      ['u64_args2', 'fmod_ret'],
      ['u64_args2', 'fexit'],
      ['pointer_call', 'fexit'],
    ]);
  });

  test('what is watched is what the programs wrote down', async () => {
    const { lab, probes } = await labWith('wide.o', { revision });
    lab.attach('fexit', 'mixed6', probes.program('record_slots'));
    const args = [255, -32768, 0xffff_ffff, -1, -128, 1];
    const { seen, ret } = lab.call('mixed6', args, { watch: true });
    expect(seen).toHaveLength(1);
    expect(seen[0]?.args).toEqual([255n, 0x8000n, 0xffff_ffffn, 0xffff_ffff_ffff_ffffn, 0x80n, 1n]);
    expect(seen[0]?.ret).toBe(ret);
    expect(lab.call('mixed6', args).ret).toBe(ret);
  });
});

/*
 * v5.x saves as many bytes as an argument has and reloads 1 and 2 bytes with zeros above. gcc's functions
 * extend for themselves, so nothing above changes. A function that trusts its caller to have extended a
 * small argument to 32 bits, as other compilers' do, gets another value once it is traced.
 */
test.each(REVISIONS)(
  '%s: a negative s8 or s16 changes for a function that trusts its caller',
  async (revision) => {
    const lab = await freshLab({ revision });
    const probe = await nothing(lab);
    await lab.loadText(`
    trusts8:  call __fentry__
              movsxd rax, edi
              ret
    trusts16: call __fentry__
              movsxd rax, edi
              ret
    trusts32: call __fentry__
              movsxd rax, edi
              ret
    extends8: call __fentry__
              movsx rax, dil
              ret`);
    lab.prototype('long trusts8(s8 a)');
    lab.prototype('long trusts16(s16 a)');
    lab.prototype('long trusts32(s32 a)');
    lab.prototype('long extends8(s8 a)');
    const results = (): bigint[] =>
      ['trusts8', 'trusts16', 'trusts32', 'extends8'].map((name) =>
        BigInt.asIntN(64, lab.call(name, [-2]).ret ?? 0n),
      );
    expect(results()).toEqual([-2n, -2n, -2n, -2n]);
    for (const kind of ['fentry', 'fexit'] as const) {
      const attached = ['trusts8', 'trusts16', 'trusts32', 'extends8'].map((name) =>
        lab.attach(kind, name, probe),
      );
      expect(results(), kind).toEqual([0xfen, 0xfffen, -2n, -2n]);
      for (const attachment of attached) attachment.detach();
    }
    expect(results()).toEqual([-2n, -2n, -2n, -2n]);
  },
);
