/* All helpers there are, by number. */

import { MANAGED_REVISIONS, type ManagedRevision } from '../../tramp/index.ts';
import type { Helper } from './helper.ts';
import { MAP_HELPERS } from './maps.ts';
import { MEMORY_HELPERS } from './memory.ts';
import { OUTPUT_HELPERS } from './output.ts';
import { STACK_HELPERS } from './stack.ts';
import { TASK_HELPERS } from './task.ts';
import { TEXT_HELPERS } from './text.ts';
import { TRAMPOLINE_HELPERS } from './trampoline.ts';

export const HELPERS: readonly Helper[] = [
  ...MAP_HELPERS,
  ...MEMORY_HELPERS,
  ...TASK_HELPERS,
  ...TEXT_HELPERS,
  ...OUTPUT_HELPERS,
  ...STACK_HELPERS,
  ...TRAMPOLINE_HELPERS,
].sort((a, b) => a.id - b.id);

/** The helpers that a revision has. */
export function helpersOf(revision: ManagedRevision): readonly Helper[] {
  const now = MANAGED_REVISIONS.indexOf(revision);
  return HELPERS.filter(({ since }) => MANAGED_REVISIONS.indexOf(since) <= now);
}
