/* Many histories on many kinds of machine. Machines are used again and again: creating one takes longer than a history. */

import fc from 'fast-check';
import { type KernelBug, MANAGED_REVISIONS } from '../../../tramp/index.ts';
import { histories } from './commands.ts';
import { History } from './history.ts';
import { World, type WorldOptions } from './world.ts';

/** Unicorn keeps a little memory for each patch of text, so a machine is not used for ever. */
const HISTORIES_PER_WORLD = 2000;

export interface CampaignOptions {
  readonly seed: number;
  readonly histories: number;
  /** Longest history, steps. */
  readonly length: number;
  /** Leave what is found as it is, without making it small. */
  readonly asFound?: boolean;
  /** Bugs that the kernels shall have. */
  readonly bugs?: readonly KernelBug[];
}

export interface CampaignResult {
  readonly histories: number;
  /** Steps that did something, by kind of command. */
  readonly counts: ReadonlyMap<string, number>;
}

/** @throws Error what fast-check found, made small, with the seed and path that repeat it */
export async function campaign(options: CampaignOptions): Promise<CampaignResult> {
  const worlds = new Map<string, World>();
  const counts = new Map<string, number>();
  let done = 0;
  const world: fc.Arbitrary<WorldOptions> = fc.record({
    cpus: fc.integer({ min: 1, max: 4 }),
    revision: fc.constantFrom(...MANAGED_REVISIONS),
    preemption: fc.boolean(),
    programLifetime: fc.constantFrom('kernel', 'held'),
    bugs: fc.constant(options.bugs ?? []),
  });
  try {
    await fc.assert(
      fc.asyncProperty(world, histories(options.length), async (kind, commands) => {
        const name = JSON.stringify(kind);
        const used = worlds.get(name) ?? (await World.create(kind));
        worlds.set(name, used);
        try {
          const history = new History(used);
          fc.modelRun(() => ({ model: { history, counts }, real: history }), commands);
          history.end();
          done++;
        } catch (error) {
          // What is left of a failed history would be found again by the next one.
          worlds.delete(name);
          used.close();
          throw error;
        }
        if (used.histories >= HISTORIES_PER_WORLD) {
          worlds.delete(name);
          used.close();
        }
      }),
      { seed: options.seed, numRuns: options.histories, endOnFailure: options.asFound ?? false },
    );
  } finally {
    for (const used of worlds.values()) used.close();
  }
  return { histories: done, counts };
}
