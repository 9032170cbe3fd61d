import process from 'node:process';

/** A line of progress on the terminal. */
export interface ProgressBar {
  /** @param done of `total`, both in the same unit; more than `total` counts as all */
  update(done: number, text: string): void;
  stop(): void;
}

/** A bar on stderr where that is a terminal; nothing elsewhere. */
export async function progressBar(total: number): Promise<ProgressBar | undefined> {
  if (process.stderr.isTTY !== true) return undefined;
  const { SingleBar, Presets } = await import('cli-progress');
  const format = '{bar} {percentage}%  {text}';
  // The terminal's modes stay as they are: who is interrupted cannot put them back.
  const modes = { hideCursor: false, linewrap: true };
  const bar = new SingleBar({ format, ...modes, clearOnComplete: true }, Presets.shades_grey);
  bar.start(total, 0, { text: '' });
  return {
    update: (done, text) => bar.update(Math.min(done, total), { text }),
    stop: () => bar.stop(),
  };
}
