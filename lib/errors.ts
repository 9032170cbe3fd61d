import { Errno, type ErrnoName } from './errno.ts';

/*
 * Five kinds of trouble, told apart by type:
 *   KernelError  what the kernel would return to its caller (an errno)
 *   EmitError    something that cannot be encoded, asked for by an emitter
 *   InputError   a bad file, option or request: the user can mend it
 *   Bug          a broken invariant of ours: never caught
 * The fifth, Fault, is a value and not an exception: guest code did something; see emu.
 */

/** An operation of the modelled kernel failed with an errno. Nothing was changed. */
export class KernelError extends Error {
  readonly errno: number;
  override readonly name: string = 'KernelError';
  readonly code: ErrnoName;
  /** The kernel function that refused, e.g. `bpf_trampoline_link_prog`. */
  readonly op: string;

  constructor(code: ErrnoName, op: string, detail: string) {
    super(`${op}: ${detail} (-${code})`);
    this.code = code;
    this.errno = Errno[code];
    this.op = op;
  }
}

/** An instruction that has no encoding with these operands. */
export class EmitError extends Error {
  override readonly name: string = 'EmitError';
}

/** A file, option or request from outside that cannot be used. The message says what, where and what to do. */
export class InputError extends Error {
  override readonly name: string = 'InputError';
  /** The file or option at fault. */
  readonly file: string;
  /** Where in it: a byte offset (number) or a line (text such as `line 3`), when known. */
  readonly at: number | string | undefined;

  constructor(file: string, at: number | string | undefined, message: string) {
    const where =
      at === undefined ? '' : typeof at === 'number' ? ` at offset 0x${at.toString(16)}` : ` ${at}`;
    super(`${file}${where}: ${message}`);
    this.file = file;
    this.at = at;
  }
}

/** One of our own invariants does not hold. Let it end the process. */
export class Bug extends Error {
  override readonly name: string = 'Bug';
}
