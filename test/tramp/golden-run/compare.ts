/* What a call did against what it had to do: one line per difference, none when all is well. */

import { type Kaddr, toHex } from '../../../lib/index.ts';
import { CALLEE_SAVED, CTX_FROM, type EventWord } from './layout.ts';
import { type Counters, type ExpectedCall, type ExpectedEvent, isCanonical, type Place } from './simulate.ts';
import type { Observed, ObservedEvent } from './world.ts';

/** Carry, parity, adjust, zero, sign, overflow: free for any function to change. */
const ARITHMETIC_FLAGS = 0x8d5n;

export function differences(expected: ExpectedCall, observed: Observed, place: Place): string[] {
  const found: string[] = [];
  const equal = (what: string, want: bigint | undefined, have: bigint | undefined): void => {
    if (want !== undefined && want !== have) found.push(`${what}: ${show(have)}, not ${show(want)}`);
  };
  compareEvents(expected, observed, equal);
  if (expected.faultAt !== undefined) {
    const kind = isCanonical(expected.faultAt) ? 'read-unmapped' : 'general-protection';
    if (observed.fault?.kind !== kind) found.push(`${observed.fault?.kind ?? 'no fault'} instead of ${kind}`);
    equal('fault address', expected.faultAt, observed.fault?.address);
    return found;
  }
  if (observed.fault !== null) return [...found, `fault: ${observed.fault.detail}`];

  equal('rax', expected.rax, observed.rax);
  CALLEE_SAVED.forEach((name, i) => {
    equal(name, expected.saved[name], observed.saved[i]);
  });
  equal('rsp before', place.rsp, observed.rspBefore);
  equal('rsp after', place.rsp, observed.rspAfter);
  equal('flags', observed.flagsBefore & ~ARITHMETIC_FLAGS, observed.flagsAfter & ~ARITHMETIC_FLAGS);
  equal('direction flag', 0n, observed.flagsAfter & 0x400n);
  compareStack(expected, observed, place, found);
  for (const [prog, counters] of expected.counters) {
    const have = observed.counters.get(prog);
    for (const name of Object.keys(counters) as (keyof Counters)[]) {
      equal(`${name} of program ${show(prog)}`, counters[name], have?.[name]);
    }
  }
  if (observed.referencesAfter !== undefined) equal('references', 1n, observed.referencesAfter);
  if (observed.referencesInside !== undefined) equal('references inside', 2n, observed.referencesInside);
  observed.depths.forEach((depth, i) => {
    equal(`${['rcu', 'trace', 'migration'][i]} depth`, 0n, BigInt(depth));
  });
  equal('splats', 0n, BigInt(observed.mightFaultSplats));
  equal('clock', expected.clock, observed.clock);
  return found;
}

type Equal = (what: string, want: bigint | undefined, have: bigint | undefined) => void;

function compareEvents(expected: ExpectedCall, observed: Observed, equal: Equal): void {
  equal('number of events', BigInt(expected.events.length), BigInt(observed.events.length));
  expected.events.forEach((event, i) => {
    compareEvent(event, observed.events[i], (what, want, have) =>
      equal(`event ${i} ${event.what}: ${what}`, want, have),
    );
  });
}

function compareEvent(want: ExpectedEvent, have: ObservedEvent | undefined, equal: Equal): void {
  for (const name of Object.keys(want.words) as EventWord[]) equal(name, want.words[name], have?.words[name]);
  want.ctx?.forEach((word, i) => {
    equal(`ctx[${i + CTX_FROM}]`, word, have?.ctx[i]);
  });
}

/** From the caller's rsp upwards nothing may change, and nothing below what image and callees need. */
function compareStack(
  expected: ExpectedCall,
  observed: Observed,
  { stack, stackBase, rsp }: Place,
  found: string[],
): void {
  const offset = (address: Kaddr): number => Number(address - stackBase);
  // The last word is the return address of the driver itself.
  const changed = (from: number, to: number): boolean =>
    Buffer.compare(stack.subarray(from, to), observed.stack.subarray(from, to)) !== 0;
  if (changed(offset(rsp), stack.length - 8)) {
    found.push(`the caller's stack: ${toHex(observed.stack.subarray(offset(rsp), stack.length - 8))}`);
  }
  if (changed(0, offset(expected.deepest))) found.push('the stack below the frame');
}

function show(value: bigint | undefined): string {
  return value === undefined ? 'nothing' : `0x${value.toString(16)}`;
}
