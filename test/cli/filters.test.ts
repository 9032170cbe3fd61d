/* The filters: emit, poke and listing from requests. */

import { describe, expect, test } from 'vitest';
import { type ProgRef, REVISIONS, type RevisionName } from '../../jit/index.ts';
import { hex64, toHex } from '../../lib/index.ts';
import { pokeVectors, type TrampolineVector, trampolineVectors } from '../vectors.ts';
import { jsonLines, tramplab } from './support.ts';

function prog({ prog, bpfFunc, insnsi, sleepable, jited, kind, cookie }: ProgRef): Record<string, unknown> {
  return {
    prog: hex64(prog),
    bpfFunc: hex64(bpfFunc),
    insnsi: hex64(insnsi),
    sleepable,
    jited,
    ...(kind === undefined ? {} : { kind }),
    ...(cookie === undefined ? {} : { cookie: hex64(cookie) }),
  };
}

/** A vector as a line of `tramplab emit`. */
function emitLine(revision: RevisionName, { request }: TrampolineVector, id: unknown): string {
  const { image, imageSize, im, origCall, argSizes, retSize, flags, fentry, fmodRet, fexit } = request;
  const { helpers, config } = request;
  return JSON.stringify({
    id,
    revision,
    image: hex64(image),
    imageSize,
    im: hex64(im),
    origCall: hex64(origCall),
    argSizes,
    retSize,
    flags,
    fentry: fentry.map(prog),
    fmodRet: fmodRet.map(prog),
    fexit: fexit.map(prog),
    helpers: Object.fromEntries(Object.entries(helpers).map(([name, at]) => [name, hex64(at)])),
    ...(config === undefined ? {} : { config }),
  });
}

const SIMPLE = {
  id: 1,
  revision: 'v5.15',
  image: '0xffffffffa0201000',
  argSizes: [8, 4],
  flags: 1,
  fentry: [{ prog: '0xffffc900001d5000', bpfFunc: '0xffffffffa0003000' }],
  helpers: { __bpf_prog_enter: '0xffffffff811d5e10', __bpf_prog_exit: '0xffffffff811d5ea0' },
};

const SIMPLE_POKE = {
  id: 1,
  revision: 'v5.15',
  ip: '0xffffffff81a2b3c0',
  type: 'CALL',
  oldAddr: null,
  newAddr: '0xffffffffa0201000',
  isText: true,
  prior: '0f1f440000aabb',
};

describe('emit', () => {
  test('gives what the kernels gave, for every vector of every revision, in one process', async () => {
    const wanted = REVISIONS.flatMap((revision) =>
      trampolineVectors(revision).map((vector) => ({ revision, vector })),
    );
    expect(wanted.length).toBeGreaterThan(2200);
    const input = wanted
      .map(({ revision, vector }) => emitLine(revision, vector, `${revision} ${vector.id}`))
      .join('\n');
    const { status, stdout, stderr } = await tramplab(['emit'], { input });
    expect([status, stderr]).toEqual([0, '']);
    const answers = jsonLines(stdout);
    expect(answers).toHaveLength(wanted.length);
    for (const [i, { revision, vector }] of wanted.entries()) {
      const { ret, bytes, ipAfterCall, ipEpilogue } = vector;
      const id = `${revision} ${vector.id}`;
      expect(answers[i]).toEqual(
        bytes === undefined ? { id, ret } : { id, ret, ipAfterCall, ipEpilogue, bytes: toHex(bytes) },
      );
    }
  });

  test('answers a line that cannot be used in its place, and all others', async () => {
    const bad: readonly (readonly [line: string, error: string])[] = [
      ['{', 'not JSON'],
      ['[1]', 'not an object'],
      ['null', 'not an object'],
      [
        JSON.stringify({ ...SIMPLE, revision: 'v9' }),
        'revision: "v9"; wanted v5.13 or v5.15 or v6.1 or v6.12',
      ],
      [JSON.stringify({ ...SIMPLE, image: 12 }), 'image: 12; wanted an address'],
      [JSON.stringify({ ...SIMPLE, image: '0x1ffffffffffffffff' }), 'image: "0x1ffffffffffffffff"; wanted'],
      [JSON.stringify({ ...SIMPLE, imageSize: -1 }), 'imageSize: -1; wanted an integer from 0'],
      [JSON.stringify({ ...SIMPLE, argSizes: [8, 300] }), 'an argument of 300 bytes; wanted 0 to 255'],
      [JSON.stringify({ ...SIMPLE, argSizes: ['8'] }), 'argSizes[0]: "8"; wanted an integer'],
      [JSON.stringify({ ...SIMPLE, argSizes: 8 }), 'argSizes: 8; wanted a list'],
      [JSON.stringify({ ...SIMPLE, flags: undefined }), 'flags: missing; wanted an integer'],
      [
        JSON.stringify({ ...SIMPLE, fentry: [{ prog: '0x1' }] }),
        'fentry[0].bpfFunc: missing; wanted an address',
      ],
      [JSON.stringify({ ...SIMPLE, fexit: [null] }), 'fexit[0]: null; wanted an object'],
      [
        JSON.stringify({ ...SIMPLE, fmodRet: [{ ...SIMPLE.fentry[0], jited: false }] }),
        'fmodRet[0].insnsi: missing',
      ],
      [JSON.stringify({ ...SIMPLE, helpers: { a: 1 } }), 'helpers.a: 1; wanted an address'],
      [
        JSON.stringify({ ...SIMPLE, fexit: [{ ...SIMPLE.fentry[0], kind: 3 }] }),
        'fexit[0].kind: 3; wanted 0 or 1 or 2',
      ],
      [
        JSON.stringify({ ...SIMPLE, fentry: [{ ...SIMPLE.fentry[0], cookie: 7 }] }),
        'fentry[0].cookie: 7; wanted an address',
      ],
      [JSON.stringify({ ...SIMPLE, config: { ibt: 1 } }), 'config.ibt: 1; wanted true or false'],
      [
        JSON.stringify({ ...SIMPLE, config: { cfi: { scheme: 'cet', hash: '0x1' } } }),
        'config.cfi.scheme: "cet"; wanted fineibt or kcfi',
      ],
      [
        JSON.stringify({ ...SIMPLE, config: { cfi: { scheme: 'kcfi', hash: '0x100000000' } } }),
        'config.cfi.hash: "0x100000000"; wanted a number of 32 bits',
      ],
      [
        JSON.stringify({ ...SIMPLE, config: { callDepth: { counter: '0x1', thunks: [1] } } }),
        'config.callDepth.thunks[0]: 1; wanted an address',
      ],
      [JSON.stringify({ ...SIMPLE, helpers: {} }), 'no address for __bpf_prog_enter; give one'],
      ['{"__proto__":{"revision":"v5.15"}}', 'revision: missing'],
    ];
    const good = JSON.stringify(SIMPLE);
    const lines = bad.flatMap(([line]) => [line, good, '']);
    const { status, stdout, stderr } = await tramplab(['emit'], { input: `${lines.join('\n')}\n` });
    expect([status, stderr]).toEqual([2, '']);
    const answers = jsonLines(stdout);
    expect(answers).toHaveLength(2 * bad.length);
    for (const [i, [line, error]] of bad.entries()) {
      expect(answers[2 * i]).toEqual({
        id: line.includes('"id":1') ? 1 : null,
        error: expect.stringContaining(`line ${3 * i + 1}: `),
      });
      expect(answers[2 * i]?.['error']).toContain(error);
      expect(answers[2 * i + 1]).toMatchObject({ id: 1, ret: 76, ipAfterCall: null, ipEpilogue: null });
    }
  });

  test('what the kernel would refuse is an answer and no error', async () => {
    const input = [
      JSON.stringify({ ...SIMPLE, argSizes: Array(7).fill(8) }),
      JSON.stringify({ ...SIMPLE, imageSize: 100 }),
    ].join('\n');
    const { status, stdout } = await tramplab(['emit'], { input });
    expect([status, jsonLines(stdout)]).toEqual([
      0,
      [
        { id: 1, ret: -524 },
        { id: 1, ret: -14 },
      ],
    ]);
  });

  test('needs neither emulator nor disassembler nor assembler', async () => {
    // What was loaded, told when the process ends; each of the three is a CommonJS package.
    const tell =
      "import m from 'node:module'; process.on('exit', () => console.error(Object.keys(m._cache).join()))";
    const node = ['--import', `data:text/javascript,${encodeURIComponent(tell)}`];
    const { stderr, status } = await tramplab(['emit'], { input: JSON.stringify(SIMPLE), node });
    expect(status).toBe(0);
    expect(stderr).toContain('commander');
    for (const name of ['koffi', 'iced-x86', 'keystone']) expect(stderr).not.toContain(name);
    const listing = await tramplab(['emit', '--listing'], { input: JSON.stringify(SIMPLE), node });
    expect(listing.stderr).toContain('iced-x86');
    expect(listing.stderr).not.toContain('koffi');
  });

  test('no input, no output', async () => {
    expect(await tramplab(['emit'])).toEqual({ status: 0, stdout: '', stderr: '' });
  });
});

describe('poke', () => {
  test('gives what the kernels gave, for every vector', async () => {
    for (const revision of REVISIONS) {
      const vectors = pokeVectors(revision);
      expect(vectors.length).toBeGreaterThan(100);
      const input = vectors.map(({ id, request, prior }) =>
        JSON.stringify({
          id,
          revision,
          ip: hex64(request.ip),
          type: request.type,
          oldAddr: request.oldAddr === null ? null : hex64(request.oldAddr),
          newAddr: request.newAddr === null ? null : hex64(request.newAddr),
          isText: request.isText,
          ...(request.ibt === undefined ? {} : { ibt: request.ibt }),
          prior: toHex(prior),
        }),
      );
      const { status, stdout, stderr } = await tramplab(['poke'], { input: input.join('\n') });
      expect([status, stderr]).toEqual([0, '']);
      expect(jsonLines(stdout)).toEqual(
        vectors.map(({ id, ret, after }) => ({ id, ret, after: toHex(after) })),
      );
    }
  });

  test('keeps the bytes behind the five; answers bad lines in place', async () => {
    const input = [
      SIMPLE_POKE,
      { ...SIMPLE_POKE, prior: '0f1f44' },
      { ...SIMPLE_POKE, prior: 'xx' },
      { ...SIMPLE_POKE, type: 'NOP' },
      { ...SIMPLE_POKE, isText: 1 },
      { ...SIMPLE_POKE, prior: 'e800000000aabb' },
    ].map((line) => JSON.stringify(line));
    const { status, stdout } = await tramplab(['poke'], { input: input.join('\n') });
    expect(status).toBe(2);
    expect(jsonLines(stdout)).toEqual([
      { id: 1, ret: 0, after: 'e83b5c7d1eaabb' },
      { id: 1, error: 'line 2: prior: wanted the 5 or more bytes at ip, as hex' },
      { id: 1, error: 'line 3: prior: wanted the 5 or more bytes at ip, as hex' },
      { id: 1, error: 'line 4: type: "NOP"; wanted CALL or JUMP' },
      { id: 1, error: 'line 5: isText: 1; wanted true or false' },
      { id: 1, ret: -16, after: 'e800000000aabb' },
    ]);
  });
});

describe('requests of v6', () => {
  const V6 = {
    ...SIMPLE,
    revision: 'v6.12',
    fentry: [{ ...SIMPLE.fentry[0], kind: 2, cookie: '0xc00c1e' }],
  };

  test('a build with CFI, call depth and return thunks; a struct and stack arguments', async () => {
    const input = [
      { ...V6, flags: 256, config: { ibt: true, cfi: { scheme: 'fineibt', hash: '0x89abcdef' } } },
      { ...V6, flags: 256, config: { cfi: { scheme: 'kcfi', hash: '0x89abcdef', callPadding: true } } },
      { ...V6, config: { callDepth: { counter: '0x2c0d0', thunks: ['0xffffffff811d5e10'] } } },
      {
        ...V6,
        config: { rethunk: true },
        helpers: { ...V6.helpers, x86_return_thunk: '0xffffffff82003a40' },
      },
      { ...V6, argSizes: [16, 8, 8, 8, 8, 4] },
    ].map((line) => JSON.stringify(line));
    const { status, stdout } = await tramplab(['emit'], { input: input.join('\n') });
    const bytes = jsonLines(stdout).map((answer) => String(answer['bytes']));
    expect(status).toBe(0);
    expect(bytes[0]).toMatch(/^f30f1efa4181eaefcdab8974070f0b90660f1f0055/);
    expect(bytes[1]).toMatch(/^b8efcdab89(90){11}55/);
    expect(bytes[2]?.match(/6548c13d/g)).toHaveLength(3);
    expect(bytes[3]).toMatch(/c9e9........$/);
    // seven words: one from the stack, cut to 4 bytes
    expect(bytes[4]).toContain('b807000000');
    expect(bytes[4]).toContain('488b4518488945f8c745fc00000000');
    for (const image of bytes) expect(image).toContain('bf1e0cc000');
  });

  test('a listing counts the code, not the 64 bytes on top, and tells the warning', async () => {
    const input = JSON.stringify({ ...V6, flags: 257 });
    const { stdout } = await tramplab(['listing'], { input });
    const { stdout: json } = await tramplab(['listing', '--json'], { input });
    const [answer] = jsonLines(json);
    const length = Number(answer?.['ret']) - 64;
    expect(stdout).toMatch(new RegExp(`^image 1: ${length} bytes at 0xffffffffa0201000\n`));
    expect(stdout).toContain('warning: INDIRECT together with flags other than RET_FENTRY_RET');
    expect(answer).toMatchObject({ length, warning: expect.stringContaining('INDIRECT') });
  });

  test('a poke behind ENDBR needs the bytes behind it', async () => {
    const poke = { ...SIMPLE_POKE, revision: 'v6.1', ibt: true };
    const input = [
      { ...poke, prior: 'f30f1efa0f1f440000aa' },
      { ...poke, prior: 'f30f1efa0f1f44' },
      { ...poke, prior: 'f30f1efa0f1f440000', ibt: false },
      { ...poke, prior: 'f30f1efa0f1f440000', revision: 'v5.15' },
      { ...poke, ibt: 1 },
    ].map((line) => JSON.stringify(line));
    const { stdout } = await tramplab(['poke'], { input: input.join('\n') });
    expect(jsonLines(stdout)).toEqual([
      { id: 1, ret: 0, after: 'f30f1efae8375c7d1eaa' },
      { id: 1, error: 'line 2: prior: an ENDBR and too little behind it; wanted the 9 or more bytes at ip' },
      { id: 1, ret: -16, after: 'f30f1efa0f1f440000' },
      { id: 1, ret: -16, after: 'f30f1efa0f1f440000' },
      { id: 1, error: 'line 5: ibt: 1; wanted true or false' },
    ]);
  });

  test('a revision that there is not is refused in one line', async () => {
    const { status, stdout, stderr } = await tramplab(['run', 'none.o', '--revision', 'v6.2']);
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(stderr).toContain('v5.13, v5.15');
  });
});

describe('listing from requests', () => {
  test('for people: pieces, steps and notes; a refusal with its reason; an error in its place', async () => {
    const input = [SIMPLE, { ...SIMPLE, id: 'seven', argSizes: Array(7).fill(8) }, { id: 3 }]
      .map((line) => JSON.stringify(line))
      .join('\n');
    const { status, stdout, stderr } = await tramplab(['listing'], { input });
    expect([status, stderr]).toEqual([2, '']);
    const lines = stdout.split('\n');
    expect(lines[0]).toBe('image 1: 76 bytes at 0xffffffffa0201000');
    expect(lines).toContain('prologue');
    expect(lines).toContain('fentry  fentry[0]');
    expect(stdout).toMatch(/ffffffffa0201000 {2}55 +push +rbp\n/);
    expect(lines).toContain('image seven: -ENOTSUPP, 7 arguments; registers hold 6');
    expect(stdout).toContain(
      '{"id":3,"error":"line 3: revision: missing; wanted v5.13 or v5.15 or v6.1 or v6.12"}',
    );
    expect(stdout).not.toContain('\x1b');
    // the same from emit
    expect((await tramplab(['emit', '--listing'], { input })).stdout).toBe(stdout);
  });

  test('for machines: one answer a line, bytes and all', async () => {
    const { stdout } = await tramplab(['listing', '--json'], { input: JSON.stringify(SIMPLE) });
    const [answer] = jsonLines(stdout);
    const rows = answer?.['listing'] as Readonly<Record<string, unknown>>[];
    expect(answer).toMatchObject({ id: 1, ret: 76 });
    expect(rows[0]).toEqual({
      address: '0xffffffffa0201000',
      offset: 0,
      bytes: '55',
      instruction: 'push    rbp',
      step: 'prologue',
      note: '',
    });
    const emitted = jsonLines((await tramplab(['emit'], { input: JSON.stringify(SIMPLE) })).stdout);
    expect(rows.map(({ bytes }) => bytes).join('')).toBe(emitted[0]?.['bytes']);
  });
});

describe('lines that could end a filter', () => {
  const good = JSON.stringify({ ...SIMPLE, id: 'good' });
  const nested = '['.repeat(5000) + ']'.repeat(5000);

  test.each([
    [
      'an id that nests deeply',
      `{"id":${nested},"revision":"v5.15"}`,
      'id: a list; wanted a text or an integer',
    ],
    [
      'a field that nests deeply',
      `{"id":2,"revision":"v5.15","image":"0x0","flags":${nested}}`,
      'flags: a list',
    ],
    ['an id that no double holds', '{"id":12345678901234567890}', 'wanted a text or an integer'],
  ])('%s: its neighbours are answered', async (_, line, message) => {
    const { status, stdout } = await tramplab(['emit'], { input: [good, line, good].join('\n') });
    const answers = jsonLines(stdout) as { id: unknown; ret?: number; error?: string }[];
    expect(status).toBe(2);
    expect(answers.map(({ id, ret }) => [id, (ret ?? -1) > 0])).toMatchObject([
      ['good', true],
      [answers[1]?.id, false],
      ['good', true],
    ]);
    expect(answers[1]?.error).toContain(message);
  });

  test('a byte order mark does not matter', async () => {
    const { status, stdout } = await tramplab(['emit'], { input: `\ufeff${good}\n` });
    expect([status, (jsonLines(stdout) as { id: unknown }[])[0]?.id]).toEqual([0, 'good']);
  });

  test('address 0 is no address, for poke as in C', async () => {
    const { stdout } = await tramplab(['poke'], {
      input: JSON.stringify({ ...SIMPLE_POKE, oldAddr: '0x0' }),
    });
    expect(jsonLines(stdout)).toMatchObject([{ id: 1, ret: 0 }]);
  });
});
