import process from 'node:process';

/*
 * One line on a terminal that says how far things are; nothing where there is no terminal.
 */

export interface Progress {
  /** Replaces what the line said. */
  say(text: string): void;
  /** Takes the line away. */
  done(): void;
}

export const SILENT: Progress = { say: () => undefined, done: () => undefined };

export function terminalProgress(): Progress {
  const { stderr } = process;
  if (stderr.isTTY !== true) return SILENT;
  const clear = '\r\u001b[K';
  return {
    say: (text) => stderr.write(`${clear}${text.slice(0, (stderr.columns || 80) - 1)}`),
    done: () => stderr.write(clear),
  };
}
