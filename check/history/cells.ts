/* What histories can come to: the coverage that a campaign counts. */

import { ATTACH_KINDS } from '../../tramp/index.ts';
import { HISTORY_REVISIONS, type HistoryCase } from './case.ts';

/** What an attach of a kind can end with, beside success. */
const ATTACH_ERRORS = ['EBUSY', 'E2BIG', 'ENOMEM', 'EPERM', 'EFAULT', 'ENODEV', 'EINVAL'];
const REPLACE_ERRORS = ['EBUSY', 'ENOMEM', 'EINVAL'];
/** And a detach, which puts another image in place. */
const DETACH_ERRORS = ['EBUSY', 'ENOMEM', 'EPERM', 'EFAULT', 'ENODEV', 'EINVAL'];

const CALLS = [
  ...['untraced', 'traced', 'nested', 'missed', 'answered', 'replaced', 'left-early'],
  ...['patched', 'past-patch'],
];

function kernelCell(revision: string, preemption: boolean, cpus: number): string {
  return `kernel: ${revision}, ${preemption ? 'preemptible' : 'not preemptible'}, CPUs ${cpus}`;
}

export const HISTORY_CELLS: readonly string[] = [
  ...HISTORY_REVISIONS.flatMap((revision) =>
    [true, false].flatMap((preemption) => [1, 2, 3, 4].map((cpus) => kernelCell(revision, preemption, cpus))),
  ),
  ...ATTACH_KINDS.flatMap((kind) => {
    const replaces = kind === 'freplace';
    const attaches = ['ok', ...(replaces ? REPLACE_ERRORS : ATTACH_ERRORS)];
    const detaches = ['ok', ...(replaces ? [] : DETACH_ERRORS)];
    return [
      ...attaches.filter((end) => kind !== 'lsm' || end !== 'E2BIG').map((end) => `attach ${kind}: ${end}`),
      ...detaches.map((end) => `detach ${kind}: ${end}`),
    ];
  }),
  ...['put', 'stats', 'foreign', 'hold: ok', 'reload: ok', 'reload: EBUSY'],
  ...['ok', 'EBUSY', 'EINVAL', 'ENOMEM'].map((end) => `livepatch: ${end}`),
  ...['ok', 'ENOMEM'].map((end) => `unpatch: ${end}`),
  ...['ok', 'EBUSY'].map((end) => `array: ${end}`),
  ...CALLS.map((what) => `call: ${what}`),
];

const KNOWN: ReadonlySet<string> = new Set(HISTORY_CELLS);

/** The cells of what a case is, and of what it came to; what no drawn case comes to has none. */
export function cellsOf(
  { revision, preemption, cpus }: HistoryCase,
  marks: ReadonlySet<string>,
): readonly string[] {
  return [kernelCell(revision, preemption, cpus), ...[...marks].filter((mark) => KNOWN.has(mark))];
}
