import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Multimap } from '../../tramp/multimap.ts';

test('lists of values by key, oldest first, through any history', () => {
  const step = fc.record({ add: fc.boolean(), key: fc.nat(5), value: fc.nat(3) });
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const real = new Multimap<number, number>();
      const model: [number, number][] = [];
      for (const { add, key, value } of steps) {
        if (add) {
          real.add(key, value);
          model.push([key, value]);
        } else {
          real.remove(key, value);
          const at = model.findIndex(([k, v]) => k === key && v === value);
          if (at >= 0) model.splice(at, 1);
        }
        const of = (wanted: number) => model.filter(([k]) => k === wanted).map(([, v]) => v);
        for (let one = 0; one <= 5; one++) expect(real.get(one)).toEqual(of(one));
        expect(real.values().sort()).toEqual(model.map(([, v]) => v).sort());
      }
    }),
  );
});

test('keys that came and went do not pile up, and those that stay are kept', () => {
  const map = new Multimap<number, string>();
  for (let key = 0; key < 10; key++) map.add(key, `stays ${key}`);
  for (let key = 10; key < 10_000; key++) {
    map.add(key, 'comes');
    map.remove(key, 'comes');
  }
  map.add(10, 'comes again');
  expect(map.values()).toHaveLength(11);
  expect(map.get(3)).toEqual(['stays 3']);
  expect(map.get(10)).toEqual(['comes again']);
  expect(map.get(9_999)).toEqual([]);
});
