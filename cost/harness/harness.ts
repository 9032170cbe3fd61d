/* What the harness itself costs: emitting, attaching, calling, starting, keeping. */

import { MANAGED_REVISIONS } from '../../tramp/index.ts';
import { type AttachCost, attachCost } from './attach.ts';
import { type CallCost, callCost } from './call.ts';
import { type CommandCost, commandCost } from './command.ts';
import { type EmitCost, emitCost } from './emit.ts';

export interface HarnessCost {
  readonly emit: readonly EmitCost[];
  readonly call: CallCost;
  /** Beside a few, many, and very many other trampolines. */
  readonly attach: readonly AttachCost[];
  readonly command: CommandCost;
}

const OTHERS: readonly number[] = [10, 1_000, 20_000];
const ATTACHES = 10_000;
const ROUNDS = 5;
const REQUESTS = 10_000;

/** Times everything. @param told hears what is measured next; there are `HARNESS_PARTS` of them */
export async function measureHarness(told: (part: string) => void): Promise<HarnessCost> {
  const emit: EmitCost[] = [];
  for (const revision of MANAGED_REVISIONS) {
    told(`emit, ${revision}`);
    emit.push(await emitCost(revision, ROUNDS));
  }
  told('call');
  const call = await callCost(ROUNDS);
  const attach: AttachCost[] = [];
  for (const others of OTHERS) {
    told(`attach beside ${others}`);
    attach.push(await attachCost(others, ATTACHES));
  }
  told('command');
  return { emit, call, attach, command: commandCost(ROUNDS, REQUESTS) };
}

export const HARNESS_PARTS: number = MANAGED_REVISIONS.length + OTHERS.length + 2;
