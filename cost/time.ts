/*
 * Nanoseconds of a traced call on the host CPU: the same image, runtime and programs, linked at user-space
 * addresses and run at full speed by the engine `native`. A loop in guest code calls the function many
 * times; the same loop around the bare function is timed in turn with it, round after round, so that what
 * else the machine does falls on both. What is left is the difference.
 */

import { createMachine, type Machine } from '../emu/index.ts';
import { InputError } from '../lib/index.ts';
import type { ManagedRevision } from '../tramp/index.ts';
import { inTurn, type Time, timeOf } from './harness/rounds.ts';
import type { Mix } from './mix.ts';
import { type Counters, countersAvailable, perfStat } from './perf.ts';
import { pinned } from './pin.ts';
import type { NoTimes } from './report.ts';
import { type ReturnTimes, returnChains } from './returns.ts';
import { placeLoop, Scene } from './scene.ts';

/** What a mix takes on the host CPU. */
export interface MixTime {
  /** One turn of the loop around the bare function, and around the traced one. */
  readonly bare: Time;
  readonly traced: Time;
  /** Median over the rounds of traced less bare, nanoseconds. */
  readonly overNs: number;
  /** Per traced call, where the system counts. */
  readonly counters: Counters | null;
}

/** How times were taken, and what belongs to no mix. */
export interface NativeTimes {
  readonly method: string;
  /** Whether hardware counters could be read, and how; else why not. */
  readonly counters: string;
  readonly returns: ReturnTimes;
}

/** Calls per turn of the guest's loop. */
const CALLS = 20_000;
const ROUNDS = 5;
const TIME_MS = 60;

export class NativeTimer {
  readonly #core: number | undefined;
  readonly #counters: string | undefined;
  readonly #unpin: () => void;

  private constructor(core: number | undefined, unpin: () => void, counters: string | undefined) {
    this.#core = core;
    this.#unpin = unpin;
    this.#counters = counters;
  }

  /** Pins this process, and with it the processes that run guests, to one core; or says why there are no times. */
  static async open(): Promise<NativeTimer | NoTimes> {
    try {
      (await nativeMachine()).close();
    } catch (error) {
      if (error instanceof InputError) return { none: error.message };
      throw error;
    }
    const { core, unpin } = pinned();
    return new NativeTimer(core, unpin, countersAvailable());
  }

  async mix(revision: ManagedRevision, mix: Mix): Promise<MixTime> {
    const nothing: Mix = { ...mix, fentry: 0, fmodRet: 0, fexit: 0, retired: false };
    const bare = await Scene.create(await nativeMachine(), revision, nothing);
    const traced = await Scene.create(await nativeMachine(), revision, mix);
    try {
      traced.hold();
      const loops = [loopOf(bare), loopOf(traced)] as const;
      const times = await inTurn(
        [
          { name: 'bare', batch: CALLS, run: loops[0] },
          { name: 'traced', batch: CALLS, run: loops[1] },
        ],
        { rounds: ROUNDS, timeMs: TIME_MS },
      );
      const [one, other] = [times.get('bare') ?? [], times.get('traced') ?? []];
      return {
        bare: timeOf(one),
        traced: timeOf(other),
        overNs: timeOf(other.map((value, round) => value - (one[round] as number))).medianNs,
        counters: this.#counters === undefined ? null : await perfStat(loops[1], CALLS),
      };
    } finally {
      bare.close();
      traced.close();
    }
  }

  /** What belongs to no mix. */
  async rest(): Promise<NativeTimes> {
    const core = this.#core === undefined ? 'not pinned' : `pinned to core ${this.#core}`;
    return {
      method:
        `loops of ${CALLS} calls in guest code on the host CPU, ${core}, warmed; bare and traced in turn, ` +
        `medians of ${ROUNDS} rounds of ${TIME_MS} ms`,
      counters: this.#counters ?? 'none: perf stat is not installed, or this system lets it count nothing',
      returns: await returnChains(nativeMachine, this.#counters !== undefined),
    };
  }

  close(): void {
    this.#unpin();
  }
}

function nativeMachine(): Promise<Machine> {
  return createMachine({ engine: 'native', counting: false });
}

/** A loop of CALLS calls of the scene's function. */
function loopOf(scene: Scene): () => void {
  const loop = placeLoop(scene, CALLS);
  return () => {
    scene.cpu.call(loop);
  };
}
