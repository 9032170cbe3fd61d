import { describe, expect, it } from 'vitest';
import { readAnswers } from '../../conformance/answers.ts';
import { InputError } from '../../lib/index.ts';

const lines = (...objects: readonly object[]): string =>
  objects.map((object) => `${JSON.stringify(object)}\n`).join('');

describe("a guest's answers", () => {
  it('are put together by combination and tag', () => {
    const answers = readAnswers(
      lines(
        { at: 'symbol', name: 'f', address: '0xffffffff81000000', times: 1 },
        { at: 'symbol', name: 'twice', address: '0xffffffff81000100', times: 2 },
        { at: 'offset', struct: 'bpf_prog', field: 'bpf_func', offset: 48 },
        { at: 'offset', struct: 'bpf_tramp_image', field: 'size', offset: -1 },
        { at: 'memory', tag: 'x', address: '0x10', bytes: '0102' },
        { at: 'begin', name: 'one' },
        { at: 'site', tag: 's0', address: '0xffffffff81000000', bytes: '0f1f440000' },
        { at: 'image', tag: 's0', address: null },
        {
          at: 'image',
          tag: 's1',
          address: '0x1000',
          bytes: '55',
          pointees: [{ address: '0x20', bytes: 'aa' }],
        },
        { at: 'link', tag: 'l0', error: -16 },
        { at: 'call', tag: 's2', result: 0, retval: 42 },
        { at: 'info', tag: 'p0', prog: 'p0', entry: '0x30', runs: '18446744073709551615', misses: '1' },
        { at: 'end' },
        { at: 'begin', name: 'two' },
        { at: 'log', name: 'p0', text: 'no' },
        { at: 'error', command: 'prog', name: 'p0', error: -22 },
        { at: 'end' },
        { at: 'done' },
      ),
    );
    expect(answers.done).toBe(true);
    expect([...answers.symbols]).toEqual([['f', 0xffff_ffff_8100_0000n]]);
    expect([...answers.offsets]).toEqual([['bpf_prog.bpf_func', 48]]);
    expect(answers.memory.get('x')?.bytes).toEqual(Uint8Array.of(1, 2));
    const one = answers.combinations.get('one');
    expect(one?.images.get('s0')).toBeNull();
    expect(one?.images.get('s1')?.pointees.get(0x20n as never)).toEqual(Uint8Array.of(0xaa));
    expect(one?.links.get('l0')).toBe(-16);
    expect(one?.calls.get('s2')).toEqual({ result: 0, retval: 42 });
    expect(one?.infos.get('p0')?.runs).toBe(2n ** 64n - 1n);
    expect(answers.combinations.get('two')).toMatchObject({ error: 'prog p0: errno 22', log: 'no' });
  });

  it('may be cut off where a boot was given up', () => {
    const answers = readAnswers(`${lines({ at: 'begin', name: 'one' })}{"at":"si`);
    expect(answers.done).toBe(false);
    expect([...answers.combinations.keys()]).toEqual(['one']);
  });

  it('are refused with the line when something else is among them', () => {
    const read = (): unknown => readAnswers(`${lines({ at: 'end' })}qemu says hello\n`);
    expect(read).toThrow(InputError);
    expect(read).toThrow('guest output line 2: is no answer of our init program');
  });
});
