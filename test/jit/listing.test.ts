import { describe, expect, test } from 'vitest';
import {
  Assembler,
  type Code,
  formatListing,
  insnAt,
  type ListingOptions,
  type ListingRow,
  listBytes,
  listCode,
  outermostStep,
  prepareTrampoline,
  REVISIONS,
  rdi,
  type Step,
  Sym,
  stepPath,
  type TrampolineRequest,
} from '../../jit/index.ts';
import { addrAdd, Bug, kaddr, toHex } from '../../lib/index.ts';
import { trampolineVectors } from '../vectors.ts';

function codeOf(revision: (typeof REVISIONS)[number], request: TrampolineRequest): Code {
  const result = prepareTrampoline(revision, request, { provenance: true });
  if (result.bytes === undefined || result.code === undefined) throw new Bug('refused');
  return result.code;
}

/** The first image that has everything: all three kinds of programs and the original. */
const everything = trampolineVectors('v5.15').find(
  ({ request, bytes }) =>
    bytes !== undefined &&
    [request.fentry, request.fmodRet, request.fexit, request.argSizes].every((list) => list.length > 0) &&
    (request.flags & 2) !== 0,
)?.request;
if (everything === undefined) throw new Bug('no such vector');
const request: TrampolineRequest = { ...everything, name: 'traced' };
const code = codeOf('v5.15', request);
const rows = listCode(code, request.image);

describe.each(REVISIONS)('rows of every image of %s', (revision) => {
  test('put together, they are the image', () => {
    for (const { request, bytes } of trampolineVectors(revision)) {
      if (bytes === undefined) continue;
      const rows = listCode(codeOf(revision, request), request.image);
      expect(rows.map((row) => row.bytes).join('')).toBe(toHex(bytes));
      expect(rows.every((row) => row.step !== '' && row.instruction !== '(bad)')).toBe(true);
      expect(rows.every((row) => row.address === addrAdd(request.image, row.offset))).toBe(true);
    }
  });

  test('masked, they are the same wherever the image stands', () => {
    const text = (rows: readonly ListingRow[]): string =>
      rows.map((row) => `${row.bytes} ${row.step}`).join('\n');
    const masked = { maskRelocs: true };
    let compared = 0;
    for (const { request, bytes } of trampolineVectors(revision)) {
      const image = addrAdd(request.image, 0x1000);
      const moved = prepareTrampoline(revision, { ...request, image }, { provenance: true });
      // a call at the very edge of its reach may not survive the move
      if (bytes === undefined || moved.bytes === undefined || moved.code === undefined) continue;
      const here = listCode(codeOf(revision, request), request.image, masked);
      expect(text(listCode(moved.code, image, masked))).toBe(text(here));
      compared++;
    }
    expect(compared).toBeGreaterThan(300);
  });
});

describe('one image', () => {
  const find = (instruction: string): ListingRow | undefined =>
    rows.find((row) => row.instruction.replace(/\s+/g, ' ') === instruction);

  test('calls are named, by the symbols of the request', () => {
    expect(find('call __bpf_tramp_enter')?.step).toBe('__bpf_tramp_enter');
    expect(find('call traced+5') ?? find('call traced')).toMatchObject({ step: 'call_orig' });
    const prog = request.fentry[0]?.name ?? '';
    expect(find(`call ${prog}`)?.step).toBe(`fentry/invoke_bpf_prog ${prog}/run`);
  });

  test('pointers are named beside the note', () => {
    const prog = request.fentry[0]?.name ?? '';
    const enter = rows.find((row) => row.step === `fentry/invoke_bpf_prog ${prog}/enter`);
    expect(enter?.note).toBe(`arg1: prog ${prog}`);
  });

  test('branches within the image stay addresses, even where something has a name for them', () => {
    const named = listCode(code, request.image, { nameOf: () => 'elsewhere' });
    const branch = named.find((row) => row.instruction.startsWith('jne'));
    expect(branch?.instruction).toMatch(/^jne +0x[0-9a-f]+$/);
    expect(rows.some((row) => branch?.instruction.endsWith(row.address.toString(16)))).toBe(true);
  });

  test('as text: a heading per piece and program, aligned columns, nothing trailing', () => {
    const text = formatListing(rows);
    const lines = text.trimEnd().split('\n');
    const headings = lines.filter((line) => !line.startsWith(' '));
    expect(headings[0]).toBe('prologue');
    expect(headings).toContain('save_regs');
    expect(headings).toContain(`fentry  ${request.fentry[0]?.name}`);
    expect(headings.at(-1)).toBe('epilogue');
    const instructions = lines.filter((line) => line.startsWith(' '));
    expect(instructions.length).toBe(rows.length);
    expect(instructions.every((line) => /^ {2}[0-9a-f]{16} {2}[0-9a-f]{2}/.test(line))).toBe(true);
    expect(lines.every((line) => line === line.trimEnd())).toBe(true);
    const columns = new Set(instructions.map((line, i) => line.indexOf(rows[i]?.instruction ?? '?')));
    expect(columns.size).toBe(1);
    expect(text.endsWith('\n')).toBe(true);
  });

  test('paint sees every part and decides how it is shown', () => {
    const kinds = new Set<string>();
    const painted = formatListing(rows, (kind, text) => {
      kinds.add(kind);
      return kind === 'heading' ? `<${text}>` : text;
    });
    expect([...kinds].sort()).toEqual(['address', 'bytes', 'heading', 'note', 'step']);
    expect(painted.replaceAll(/^<(.*)>$/gm, '$1')).toBe(formatListing(rows));
  });
});

describe('bytes of unknown origin', () => {
  const base = kaddr(0xffff_ffff_8100_0000n);
  const list = (hex: string, options: ListingOptions = {}): ListingRow[] =>
    listBytes(Uint8Array.from(Buffer.from(hex, 'hex')), base, options);

  test('have instructions and no steps', () => {
    expect(list('55e8fb0f0000c3')).toEqual([
      { address: base, offset: 0, bytes: '55', instruction: 'push    rbp', step: '', note: '' },
      {
        address: addrAdd(base, 1),
        offset: 1,
        bytes: 'e8fb0f0000',
        instruction: 'call    0xffffffff81001001',
        step: '',
        note: '',
      },
      { address: addrAdd(base, 6), offset: 6, bytes: 'c3', instruction: 'ret', step: '', note: '' },
    ]);
  });

  test('get the names that the caller knows', () => {
    const nameOf = (address: bigint): string | undefined => (address === base + 0x1001n ? 'f' : undefined);
    expect(list('55e8fb0f0000', { nameOf })[1]?.instruction).toBe('call    f');
  });

  test('what is no instruction is listed byte by byte, and listing goes on', () => {
    // push es does not exist in 64-bit mode; the last call is cut short
    expect(list('06c3e800').map((row) => [row.bytes, row.instruction])).toEqual([
      ['06', '(bad)'],
      ['c3', 'ret'],
      ['e8', '(bad)'],
      ['00', '(bad)'],
    ]);
  });

  test('none at all, and very many', () => {
    expect(formatListing(list(''))).toBe('\n');
    const many = listBytes(new Uint8Array(150_000).fill(0x90), base);
    expect(formatListing(many).split('\n').length).toBe(150_001);
  });
});

describe('provenance', () => {
  test('insnAt finds the instruction that covers a byte', () => {
    for (const [i, { offset }] of code.insns.entries()) {
      const end = code.insns[i + 1]?.offset ?? code.bytes.length;
      for (let at = offset; at < end; at++) expect(insnAt(code, at)).toBe(code.insns[i]);
    }
    expect(insnAt(code, -1)).toBeUndefined();
    expect(insnAt(code, code.bytes.length)).toBeUndefined();
  });

  test('steps know their path and their outermost piece', () => {
    const outer: Step = { name: 'fentry', about: undefined, parent: undefined };
    const inner: Step = { name: 'run', about: undefined, parent: { name: 'mid', about: 'x', parent: outer } };
    expect(stepPath(inner)).toBe('fentry/mid/run');
    expect(outermostStep(inner)).toBe(outer);
    expect(outermostStep(outer)).toBe(outer);
  });

  test('masking hides 8 bytes of a pointer and 4 of everything else', () => {
    const asm = new Assembler(kaddr(0));
    asm.enter('test', undefined);
    asm.movImm64(rdi, new Sym('far'));
    asm.callSym(new Sym('f'));
    const masked = listCode(asm.finish(), kaddr(0), { maskRelocs: true });
    expect(masked.map((row) => row.bytes)).toEqual([`48bf${'..'.repeat(8)}`, `e8${'..'.repeat(4)}`]);
    expect(masked.map((row) => row.note)).toEqual(['far', '']);
  });
});
