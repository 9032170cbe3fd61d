import process from 'node:process';
import { styleText } from 'node:util';
import type { Paint } from '../jit/index.ts';

const STYLES = { heading: 'bold', address: 'dim', bytes: 'cyan', step: 'yellow', note: 'green' } as const;

/** Colours for a terminal; nothing elsewhere, nor where NO_COLOR is set. */
export function paint(kind: Paint, text: string): string {
  const coloured = process.stdout.isTTY === true && process.env['NO_COLOR'] === undefined;
  return coloured && text.trim() !== '' ? styleText(STYLES[kind], text) : text;
}
