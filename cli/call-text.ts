import type { CallArgument } from '../lab/index.ts';
import { fromHex, InputError } from '../lib/index.ts';

/** A call as written on the command line: `f(1, -2, 0xffff, &"text", &hex:0011)`. */
export interface CallText {
  readonly fn: string;
  readonly args: readonly CallArgument[];
  /** The arguments as they were written. */
  readonly written: readonly string[];
}

const ARGUMENT =
  /\s*(?:(-?(?:0x[0-9a-fA-F]+|0|[1-9]\d*))(?![\w.])|&"((?:[^"\\]|\\.)*)"|&hex:([0-9a-fA-F]*))\s*/y;

/** @throws InputError naming the column (from 1) */
export function parseCall(text: string): CallText {
  const head = /^\s*([A-Za-z_.$][\w.$]*)\s*\(/.exec(text);
  const fail = (column: number, wanted: string): InputError =>
    new InputError('--call', `column ${column + 1}`, `${text}: wanted ${wanted}`);
  if (head === null) throw fail(0, 'FUNCTION(ARGUMENT, ...)');
  const args: CallArgument[] = [];
  const written: string[] = [];
  let at = head[0].length;
  const end = /\s*\)\s*$/y;
  end.lastIndex = at;
  if (end.test(text)) return { fn: head[1] as string, args, written };
  for (;;) {
    ARGUMENT.lastIndex = at;
    const match = ARGUMENT.exec(text);
    if (match === null) throw fail(at, 'an integer, &"text" or &hex:0011');
    written.push(match[0].trim());
    args.push(argument(match, fail(at, 'an even number of hex digits')));
    at = ARGUMENT.lastIndex;
    end.lastIndex = at;
    if (end.test(text)) return { fn: head[1] as string, args, written };
    if (text[at] !== ',') throw fail(at, 'a comma or )');
    at++;
  }
}

function argument([, number, string, hex]: RegExpExecArray, odd: InputError): CallArgument {
  if (number !== undefined) return number.startsWith('-') ? -BigInt(number.slice(1)) : BigInt(number);
  if (string !== undefined) return { bytes: new TextEncoder().encode(`${unescaped(string)}\0`) };
  const bytes = fromHex(hex ?? '');
  if (bytes === undefined) throw odd;
  return { bytes };
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', '0': '\0' };

function unescaped(text: string): string {
  return text.replace(/\\(.)/g, (_whole, char: string) => ESCAPES[char] ?? char);
}
