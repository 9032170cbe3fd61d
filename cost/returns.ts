/*
 * What it costs that an image which has called the original returns past its caller.
 *
 *   plain      caller ──call──▶ f ──call──▶ image ──ret──▶ f ──ret──▶ caller
 *   skipping   caller ──call──▶ f ──call──▶ image ──add rsp, 8; ret──▶ caller
 *
 * The CPU guesses where a return goes from the calls it has seen. Where the image skips a frame, its return
 * goes where the guess for f's return would have been right, and every guess further out is one off.
 * Both chains stand OUTER calls deep, so that there are returns further out.
 */

import type { Machine } from '../emu/index.ts';
import { Assembler, type Label, piece, rbx, rsp } from '../jit/index.ts';
import { Bug, type Kaddr } from '../lib/index.ts';
import { inTurn, type Time, timeOf } from './harness/rounds.ts';
import { type Counters, perfStat } from './perf.ts';

export interface ReturnTimes {
  readonly plain: Time;
  readonly skipping: Time;
  /** Branch misses per chain, where the system counts them; else that it does not. */
  readonly misses: string;
}

/** Calls around the chain. */
const OUTER = 4;
const CHAINS = 20_000;
const ROUNDS = 7;
const TIME_MS = 60;

export async function returnChains(open: () => Promise<Machine>, counters: boolean): Promise<ReturnTimes> {
  const machine = await open();
  try {
    const [cpu] = machine.cpus;
    if (cpu === undefined) throw new Bug('a machine without a CPU');
    const [plain, skipping] = [placeChain(machine, false), placeChain(machine, true)].map(
      (loop) => (): void => {
        const { fault } = cpu.call(loop);
        if (fault !== null) throw new Bug(fault.detail);
      },
    );
    if (plain === undefined || skipping === undefined) throw new Bug('two chains');
    const times = await inTurn(
      [
        { name: 'plain', batch: CHAINS, run: plain },
        { name: 'skipping', batch: CHAINS, run: skipping },
      ],
      { rounds: ROUNDS, timeMs: TIME_MS },
    );
    const misses = counters
      ? missesText(await perfStat(plain, CHAINS), await perfStat(skipping, CHAINS))
      : 'Branch misses are not counted by this system; the time shows them.';
    return { plain: timeOf(times.get('plain') ?? []), skipping: timeOf(times.get('skipping') ?? []), misses };
  } finally {
    machine.close();
  }
}

function missesText(plain: Counters | null, skipping: Counters | null): string {
  const [one, other] = [plain, skipping].map((counters) => counters?.branchMisses.toFixed(2) ?? 'unknown');
  return `Branch misses per chain: ${one} plain, ${other} skipping.`;
}

/** A loop of CHAINS chains. */
function placeChain(machine: Machine, skipping: boolean): Kaddr {
  const at = machine.memory.allocText(256, skipping ? 'skipping chain' : 'plain chain');
  const asm = new Assembler(at);
  piece('chain', () => {
    const again = asm.label('again');
    asm.push(rbx);
    asm.movImm32(rbx.as(4), CHAINS);
    asm.bind(again);
    const outermost = asm.label('outer0');
    asm.callLabel(outermost);
    asm.aluImm8('sub', rbx.as(4), 1);
    asm.jccShort('ne', again);
    asm.pop(rbx);
    asm.ret();

    let own: Label = outermost;
    for (let depth = 1; depth <= OUTER; depth++) {
      const inner = asm.label(`outer${depth}`);
      asm.bind(own);
      asm.callLabel(inner);
      asm.ret();
      own = inner;
    }
    const image = asm.label('image');
    asm.bind(own);
    asm.callLabel(image);
    asm.ret('the traced function: skipped or not');
    asm.bind(image);
    // Equally long and equally many instructions either way.
    if (skipping) asm.aluImm8('add', rsp, 8);
    else asm.raw([0x0f, 0x1f, 0x40, 0x00]);
    asm.ret();
  })({ asm });
  machine.patchText(at, asm.bytes());
  return at;
}
