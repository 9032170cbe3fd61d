import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createMachine, type Machine } from '../../emu/index.ts';
import { patchBytes } from '../../jit/index.ts';
import { addrAdd, type Kaddr, KernelError, kaddr, toHex } from '../../lib/index.ts';
import { Kernel } from '../../tramp/index.ts';

/** Sites 16 bytes apart in one page of text, and places that they can call. */
const SITES = 8;
const NOP5 = '0f1f440000';

let machine: Machine;
let kernel: Kernel;
let text: Kaddr;
const site = (index: number): Kaddr => addrAdd(text, 16 * index);
const target = (index: number): Kaddr => addrAdd(text, 1024 + 16 * index);
const bytesAt = (ip: Kaddr): string => toHex(machine.memory.bytes(ip, 5));

beforeEach(async () => {
  machine = await createMachine();
  kernel = new Kernel(machine, { revision: 'v5.15' });
  text = machine.memory.allocText(4096, 'text');
});
afterEach(() => machine.close());

/** The errno that `work` fails with; `ok` when it does not. */
function outcome(work: () => void): string {
  try {
    work();
    return 'ok';
  } catch (error) {
    if (error instanceof KernelError) return error.code;
    throw error;
  }
}

test('a site becomes the nop, whatever the compiler left', () => {
  machine.patchText(site(0), patchBytes('CALL', site(0), target(0)) ?? new Uint8Array());
  kernel.ftrace.addSite(site(0));
  expect([bytesAt(site(0)), kernel.ftrace.direct(site(0))]).toEqual([NOP5, undefined]);
});

test('a site is found from each of its five bytes', () => {
  kernel.ftrace.addSite(site(1));
  const found = Array.from({ length: 18 }, (_, i) => kernel.ftrace.location(addrAdd(site(1), i - 1)));
  expect(found.map((ip) => ip === site(1))).toEqual(found.map((_, i) => i >= 1 && i <= 5));
});

describe('refusals', () => {
  beforeEach(() => kernel.ftrace.addSite(site(0)));

  test('are by the kernel’s errno and leave the site as it was', () => {
    const { ftrace } = kernel;
    ftrace.registerDirect(site(0), target(0));
    const before = bytesAt(site(0));
    expect(outcome(() => ftrace.registerDirect(site(0), target(1)))).toBe('EBUSY');
    expect(outcome(() => ftrace.modifyDirect(site(0), target(1), target(2)))).toBe('ENODEV');
    expect(outcome(() => ftrace.unregisterDirect(site(0), target(1)))).toBe('ENODEV');
    expect(outcome(() => ftrace.registerDirect(site(5), target(1)))).toBe('ENODEV');
    expect(outcome(() => ftrace.modifyDirect(addrAdd(site(0), 1), target(0), target(1)))).toBe('ENODEV');
    const far = kaddr(0xffff_8880_0000_0000n);
    expect(outcome(() => ftrace.modifyDirect(site(0), target(0), far))).toBe('EINVAL');
    expect([bytesAt(site(0)), ftrace.direct(site(0))]).toEqual([before, target(0)]);
  });

  test('a site that somebody else wrote to, as a freplace jump is, is left alone', () => {
    machine.patchText(site(0), Uint8Array.of(0x90));
    expect(() => kernel.ftrace.registerDirect(site(0), target(0))).toThrow('EINVAL');
    expect([...machine.memory.bytes(site(0), 5)]).toEqual([0x90, 0x1f, 0x44, 0x00, 0x00]);
  });
});

test('any history agrees with a plain map from site to target', () => {
  const ip = fc.nat({ max: SITES });
  const to = fc.nat({ max: 3 });
  const step = fc.oneof(
    fc.record({ do: fc.constant('add' as const), ip }),
    fc.record({ do: fc.constant('remove' as const), ip }),
    fc.record({ do: fc.constant('register' as const), ip, to }),
    fc.record({ do: fc.constant('modify' as const), ip, old: to, to }),
    fc.record({ do: fc.constant('unregister' as const), ip, old: to }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (history) => {
      const { ftrace } = kernel;
      for (let i = 0; i <= SITES; i++) ftrace.removeSite(site(i));
      const model = new Map<number, number | undefined>();
      for (const each of history) {
        const at = site(each.ip);
        const known = model.has(each.ip);
        const now = model.get(each.ip);
        switch (each.do) {
          case 'add':
            ftrace.addSite(at);
            model.set(each.ip, undefined);
            break;
          case 'remove':
            ftrace.removeSite(at);
            model.delete(each.ip);
            break;
          case 'register': {
            const wanted = !known ? 'ENODEV' : now !== undefined ? 'EBUSY' : 'ok';
            expect(outcome(() => ftrace.registerDirect(at, target(each.to)))).toBe(wanted);
            if (wanted === 'ok') model.set(each.ip, each.to);
            break;
          }
          case 'modify': {
            const wanted = known && now === each.old ? 'ok' : 'ENODEV';
            expect(outcome(() => ftrace.modifyDirect(at, target(each.old), target(each.to)))).toBe(wanted);
            if (wanted === 'ok') model.set(each.ip, each.to);
            break;
          }
          case 'unregister': {
            const wanted = known && now === each.old ? 'ok' : 'ENODEV';
            expect(outcome(() => ftrace.unregisterDirect(at, target(each.old)))).toBe(wanted);
            if (wanted === 'ok') model.set(each.ip, undefined);
            break;
          }
        }
      }
      for (let i = 0; i <= SITES; i++) {
        const to = model.get(i);
        expect(ftrace.location(site(i))).toBe(model.has(i) ? site(i) : undefined);
        expect(ftrace.direct(site(i))).toBe(to === undefined ? undefined : target(to));
        if (!model.has(i)) continue;
        const wanted =
          to === undefined ? NOP5 : toHex(patchBytes('CALL', site(i), target(to)) ?? new Uint8Array());
        expect(bytesAt(site(i))).toBe(wanted);
      }
    }),
  );
});
