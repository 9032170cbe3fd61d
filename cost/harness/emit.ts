/* What one trampoline image costs to emit, in this process. */

import { type ProgRef, prepareTrampoline, revisions, type TrampolineRequest } from '../../jit/index.ts';
import { addrAdd, Bug, kaddr } from '../../lib/index.ts';
import type { ManagedRevision } from '../../tramp/index.ts';
import { inTurn, type Time, timeOf } from './rounds.ts';

export interface EmitCost {
  readonly revision: ManagedRevision;
  /** One image with fentry, fmod_ret and fexit, three arguments: bytes alone. */
  readonly raw: Time;
  /** The same with steps, notes and relocations. */
  readonly withProvenance: Time;
  readonly imageBytes: number;
}

/** Images per sample: one is far below what the clock can tell. */
const BATCH = 500;

const TEXT = kaddr(0xffff_ffff_a000_0000n);
const DATA = kaddr(0xffff_8881_0000_0000n);

const HELPERS = [
  '__bpf_tramp_enter',
  '__bpf_tramp_exit',
  ...['', '_recur', '_sleepable', '_sleepable_recur'].flatMap((pair) => [
    `__bpf_prog_enter${pair}`,
    `__bpf_prog_exit${pair}`,
  ]),
];

const prog = (index: number): ProgRef => ({
  prog: addrAdd(DATA, 0x1000 * index),
  bpfFunc: addrAdd(TEXT, 0x1_0000 + 0x100 * index),
  insnsi: addrAdd(DATA, 0x1000 * index + 0x48),
  sleepable: false,
  jited: true,
});

const REQUEST: TrampolineRequest = {
  image: TEXT,
  imageSize: 4096,
  im: addrAdd(DATA, 0x10_0000),
  origCall: addrAdd(TEXT, 0x2_0000),
  argSizes: [8, 4, 8],
  flags: 6,
  fentry: [prog(1)],
  fmodRet: [prog(2)],
  fexit: [prog(3)],
  helpers: Object.fromEntries(HELPERS.map((name, i) => [name, addrAdd(TEXT, 0x3_0000 + 0x40 * i)])),
};

export async function emitCost(revision: ManagedRevision, rounds: number): Promise<EmitCost> {
  const emitter = revisions[revision];
  const { bytes } = prepareTrampoline(emitter, REQUEST);
  if (bytes === undefined) throw new Bug('the request is refused');
  const emit = (provenance: boolean) => (): void => {
    for (let i = 0; i < BATCH; i++) prepareTrampoline(emitter, REQUEST, { provenance });
  };
  const times = await inTurn(
    [
      { name: 'raw', batch: BATCH, run: emit(false) },
      { name: 'provenance', batch: BATCH, run: emit(true) },
    ],
    { rounds, timeMs: 200 },
  );
  return {
    revision,
    raw: timeOf(times.get('raw') ?? []),
    withProvenance: timeOf(times.get('provenance') ?? []),
    imageBytes: bytes.length,
  };
}
