import { createRequire } from 'node:module';
import type * as Iced from 'iced-x86';
import { describe, expect, test } from 'vitest';
import {
  Frame,
  NR_SLOTS,
  RUNNER_TEXT,
  RUNNER_TEXT_BYTES,
  SIGNAL_STACK,
  SLOT_BYTES,
  SLOTS,
  Slot,
} from '../../../emu/native/control-block.ts';
import { elfExecutable } from '../../../emu/native/elf.ts';
import { le, machineCode, to } from '../../../emu/native/machine-code.ts';
import { makeRunner } from '../../../emu/native/runner.ts';
import { Bug } from '../../../lib/index.ts';
import { nativeMissing } from '../machines.ts';

const iced = createRequire(import.meta.url)('iced-x86') as typeof Iced;

/** What each instruction is, by a decoder that knows nothing of the rows. */
function disassemble(bytes: Uint8Array, address: bigint): { offset: number; text: string }[] {
  const formatter = new iced.Formatter(iced.FormatterSyntax.Intel);
  formatter.hexPrefix = '0x';
  formatter.hexSuffix = '';
  formatter.uppercaseHex = false;
  formatter.showBranchSize = false;
  formatter.branchLeadingZeros = false;
  formatter.smallHexNumbersInDecimal = false;
  formatter.ripRelativeAddresses = false;
  const decoder = new iced.Decoder(64, bytes, iced.DecoderOptions.None);
  decoder.ip = address;
  const lines: { offset: number; text: string }[] = [];
  while (decoder.canDecode) {
    const offset = Number(decoder.ip - address);
    lines.push({ offset, text: formatter.format(decoder.decode()) });
  }
  return lines;
}

/** Names as numbers, numbers in one form, no decoration: for comparing what two hands wrote. */
function plain(text: string, names: ReadonlyMap<string, bigint>): string {
  return text
    .replace(/\b(ptr|short|near)\b/g, '')
    .replace(/(\]|,\s*|\s)-SLOT_BYTES/, (_, before) => `${before}${BigInt.asUintN(64, BigInt(-SLOT_BYTES))}`)
    .replace(/\b[A-Za-z_]\w*\b/g, (word) => names.get(word)?.toString() ?? word)
    .replace(/\b0x[0-9a-f]+\b/g, (hex) => BigInt(hex).toString())
    .replace(/\b(jb|jc)\b/, 'jb')
    .replace(/\s+/g, '');
}

describe('the runner', () => {
  const runner = makeRunner();
  const end = Math.min(
    ...['signals', 'prefixes', 'no_signals', 'action'].map((name) => runner.places.get(name) ?? 0),
  );

  test('is what its listing says, instruction by instruction', () => {
    const lines = disassemble(runner.bytes.subarray(0, end), RUNNER_TEXT);
    const padding = lines.slice(runner.instructions.length);
    expect(padding.every(({ offset }) => offset >= end - 8)).toBe(true);
    for (const [i, { offset, text }] of runner.instructions.entries()) {
      // A register's name wins over a field of the same name, which only stands in brackets behind a plus.
      const fields = new Map<string, bigint>();
      const inSlot = text.includes('[rbx + ');
      for (const [name, at] of Object.entries(inSlot ? Slot : Frame)) {
        if (new RegExp(`\\+ ${name}\\]`).test(text)) fields.set(name, BigInt(at));
      }
      fields.set('SLOTS', SLOTS);
      for (const [place, at] of runner.places) fields.set(place, RUNNER_TEXT + BigInt(at));
      expect([lines[i]?.offset, plain(lines[i]?.text ?? '', new Map())]).toEqual([
        offset,
        plain(text, fields),
      ]);
    }
  });

  test('fits its page, and its slots lie apart from it', () => {
    expect(runner.bytes.length).toBeLessThan(RUNNER_TEXT_BYTES);
    expect(SLOTS % BigInt(SLOT_BYTES)).toBe(0n);
    expect(SLOTS).toBeGreaterThan(RUNNER_TEXT + BigInt(RUNNER_TEXT_BYTES));
    expect(SLOTS + BigInt(NR_SLOTS * SLOT_BYTES)).toBeLessThan(0x7e00_0000_0000n);
    expect(Math.max(...Object.values(Slot))).toBeLessThan(SIGNAL_STACK);
  });
});

test('starts, unless the host is another one or refuses something', () => {
  expect(nativeMissing ?? 'the host refuses nothing').toMatch(/the host refuses|x86-64 under Linux/);
});

describe('machine code', () => {
  test('distances count from the end of the instruction', () => {
    const code = machineCode(['again:', ['nop', 0x90], ['jmp again', 0xeb, to('again')]], {
      word: le(-2, 8),
    });
    expect([...code.bytes]).toEqual([0x90, 0xeb, 0xfd, 0, 0, 0, 0, 0, 0xfe, ...Array<number>(7).fill(0xff)]);
    expect(code.places.get('word')).toBe(8);
  });

  test('a place that is not there, or too far for a byte, is a bug', () => {
    expect(() => machineCode([['jmp nowhere', 0xeb, to('nowhere')]], {})).toThrow(Bug);
    const far = [
      ['jmp end', 0xeb, to('end')] as const,
      ...Array.from({ length: 128 }, () => ['nop', 0x90] as const),
    ];
    expect(() => machineCode([...far, 'end:'], {})).toThrow(/not in reach/);
    expect(machineCode([...far.slice(0, -1), 'end:'], {}).bytes[1]).toBe(127);
  });
});

test('the executable has one segment of text where it shall be, and no executable stack', () => {
  const file = elfExecutable(Uint8Array.of(0xc3), 0x7d00_0000_0000n);
  const view = new DataView(file.buffer);
  expect([...file.subarray(0, 6)]).toEqual([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
  expect([view.getUint16(16, true), view.getUint16(18, true), view.getBigUint64(24, true)]).toEqual([
    2,
    62,
    0x7d00_0000_0000n,
  ]);
  const segments = Array.from({ length: view.getUint16(56, true) }, (_, i) => {
    const at = Number(view.getBigUint64(32, true)) + 56 * i;
    return [view.getUint32(at, true), view.getUint32(at + 4, true), view.getBigUint64(at + 16, true)];
  });
  expect(segments).toEqual([
    [1, 5, 0x7d00_0000_0000n],
    [0x6474_e551, 6, 0n],
  ]);
  expect(file[4096]).toBe(0xc3);
});
