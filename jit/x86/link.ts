import { InputError, type Kaddr, kaddr } from '../../lib/index.ts';
import type { Code, Reloc } from './code.ts';
import { OutOfRange } from './rm.ts';

/**
 * Fills in every address that an emitter left open and returns the code with all relocations resolved.
 *
 * @param base address of the code's first byte.
 * @param resolve address of an external symbol; the code's own symbols are found without it.
 * @throws InputError naming every symbol that nobody defines.
 * @throws OutOfRange when an address does not fit its field.
 */
export function linkCode(code: Code, base: Kaddr, resolve: (symbol: string) => Kaddr | undefined): Code {
  const own = new Map(code.symbols.map((symbol) => [symbol.name, kaddr(base + BigInt(symbol.offset))]));
  const find = (name: string): Kaddr | undefined => own.get(name) ?? resolve(name);
  const open = code.relocs.filter((reloc) => reloc.target === undefined);
  const missing = new Set(open.map((reloc) => reloc.symbol).filter((name) => find(name) === undefined));
  if (missing.size > 0) {
    throw new InputError('emitted code', undefined, `undefined symbols: ${[...missing].join(', ')}`);
  }
  const bytes = code.bytes.slice();
  const view = new DataView(bytes.buffer);
  const relocs = code.relocs.map((reloc): Reloc => {
    if (reloc.target !== undefined) return reloc;
    const target = find(reloc.symbol) as Kaddr;
    write(view, reloc, kaddr(base + BigInt(reloc.offset)), target);
    return { ...reloc, target };
  });
  return { ...code, bytes, relocs };
}

function write(view: DataView, reloc: Reloc, place: Kaddr, target: Kaddr): void {
  const value = target + BigInt(reloc.addend);
  switch (reloc.kind) {
    case 'abs64':
      view.setBigUint64(reloc.offset, BigInt.asUintN(64, value), true);
      return;
    case 'abs32': {
      check(value === BigInt.asUintN(32, value), reloc);
      view.setUint32(reloc.offset, Number(value), true);
      return;
    }
    case 'abs32s':
    case 'pc32': {
      const signed = BigInt.asIntN(64, reloc.kind === 'pc32' ? value - place : value);
      check(signed === BigInt.asIntN(32, signed), reloc);
      view.setInt32(reloc.offset, Number(signed), true);
    }
  }
}

function check(fits: boolean, reloc: Reloc): void {
  if (!fits)
    throw new OutOfRange(
      `${reloc.kind} to ${reloc.symbol} at +0x${reloc.offset.toString(16)} does not reach`,
    );
}
