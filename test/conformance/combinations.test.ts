import { describe, expect, it } from 'vitest';
import { KERNELS } from '../../conformance/combination.ts';
import { COMBINATIONS, combinationsOf, SHORT } from '../../conformance/combinations.ts';
import { MAX_WORDS } from '../../conformance/recorder.ts';
import { guestScript } from '../../conformance/script.ts';
import { callerOn } from '../../conformance/target.ts';
import { parsePrototype } from '../../obj/index.ts';

/** Words of a line that the guest keeps: MAX_WORDS of guest/init.c. */
const GUEST_WORDS = 192;

describe('the combinations', () => {
  it('are enough of them, each with a name of its own that a script can hold', () => {
    expect(combinationsOf('6.1').length).toBeGreaterThanOrEqual(60);
    expect(combinationsOf('6.12').length).toBeGreaterThanOrEqual(75);
    const names = COMBINATIONS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^[\w-]+$/);
  });

  it('have ten in the short form, all of them of 6.1', () => {
    const names = combinationsOf('6.1').map(({ name }) => name);
    expect(SHORT).toHaveLength(10);
    for (const name of SHORT) expect(names).toContain(name);
  });

  it.each(COMBINATIONS.map((combination) => [combination.name, combination] as const))(
    '%s says what fits together',
    (_, { target, programs, steps }) => {
      const { args, ret } = parsePrototype(target.prototype, target.fn);
      expect(target.args.length).toBeLessThanOrEqual(MAX_WORDS);
      expect(args.length).toBe(target.args.length);
      for (const [i, { sizeBytes }] of args.entries()) {
        expect(target.args[i]?.bits, `argument ${i}`).toBeLessThanOrEqual(8 * sizeBytes);
      }
      expect(target.retBits).toBeLessThanOrEqual(8 * ret.sizeBytes);
      const attached = new Set<number>();
      let parked = false;
      for (const step of steps) {
        if (step.do === 'attach') {
          expect(attached.has(step.program)).toBe(false);
          if (step.refused === undefined) attached.add(step.program);
          expect(programs[step.program]).toBeDefined();
        }
        if (step.do === 'detach') expect(attached.delete(step.program)).toBe(true);
        if (step.do === 'park' || step.do === 'wake') {
          expect(parked).toBe(step.do === 'wake');
          parked = step.do === 'park';
          for (const kernel of KERNELS) expect(callerOn(target, kernel)[step.do]).toBeDefined();
        }
      }
      expect(parked).toBe(false);
    },
  );
});

describe('the script', () => {
  it.each(KERNELS)('of %s has lines that the guest can take', (kernel) => {
    for (const line of guestScript(combinationsOf(kernel), kernel).trimEnd().split('\n')) {
      expect(line).toMatch(/^[\x20-\x7e]*$/);
      expect(line.split(' ').length).toBeLessThanOrEqual(GUEST_WORDS);
      expect(line.split(' ')).not.toContain('');
    }
  });

  it('attaches, looks, calls and lets go in the order of the steps', () => {
    const [combination] = combinationsOf('6.1').filter(({ name }) => name === 'cookies-of-each');
    const lines = guestScript(combination === undefined ? [] : [combination], '6.1').split('\n');
    const inside = lines.slice(lines.indexOf('begin cookies-of-each'), lines.indexOf('end'));
    const words = inside.map((line) => line.split(' ').slice(0, 3).join(' '));
    expect(words.filter((line) => /^(site|link|close|image|record)/.test(line))).toEqual([
      ...['site s0 sym:security_socket_create', 'image s0 sym:security_socket_create'],
      ...['link l1 p0', 'link l2 p1', 'link l3 p2', 'link l4 p3', 'link l5 p4'],
      ...['site s6 sym:security_socket_create', 'image s6 sym:security_socket_create', 'record s7 record'],
      ...['close l1', 'close l2', 'close l3', 'close l4', 'close l5'],
      ...['site s13 sym:security_socket_create', 'image s13 sym:security_socket_create'],
    ]);
    expect(inside).toContain('link l5 p4 attach=25 cookie=0xc20000000000');
  });
});
