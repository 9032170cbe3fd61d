import process from 'node:process';
import { CommanderError } from 'commander';
import { EmitError, InputError, KernelError } from '../lib/index.ts';

/** What a command ends with. */
export const Exit = {
  FINE: 0,
  /** A failed check, a fault in guest code. */
  FINDING: 1,
  /** Bad usage or bad input. */
  BAD_INPUT: 2,
} as const;

/** One line on stderr that says what, where and what to do; the stack only on request. Gives the exit code. */
export function report(error: unknown): number {
  if (process.env['TRAMPLAB_DEBUG'] === '1') console.error(error);
  else console.error(`tramplab: ${printable(line(error))}`);
  return Exit.BAD_INPUT;
}

/** On one line, and without what a terminal would obey: messages quote what users wrote. */
function printable(text: string): string {
  const oneLine = text.replace(/\s*\n\s*/g, ' ');
  return oneLine.replace(/\p{Cc}/gu, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

function line(error: unknown): string {
  if (error instanceof RangeError && error.message === 'Invalid string length') {
    return 'standard input: a line is longer than a text can be; split it';
  }
  if (error instanceof CommanderError) {
    const text = error.message.replace(/^error: /, '').replace(/\.$/, '');
    return error.code === 'commander.help' ? 'which command? See tramplab --help' : `${text}; see --help`;
  }
  if (error instanceof InputError || error instanceof KernelError || error instanceof EmitError)
    return error.message;
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return `a bug of ours, please report it: ${text.split('\n')[0]} (TRAMPLAB_DEBUG=1 shows where)`;
}
