/* The counts of a mix: of the bare call, of the traced call, and of each part of it. */

import { createMachine } from '../emu/index.ts';
import { insnAt } from '../jit/index.ts';
import { addrAdd, type Kaddr } from '../lib/index.ts';
import type { ManagedRevision, TrampImage } from '../tramp/index.ts';
import { COLUMNS, type Column, columnOf } from './column.ts';
import { type Counts, type ExecutedInsn, executed, Tally } from './counts.ts';
import type { Mix } from './mix.ts';
import { Scene, SITE_BYTES } from './scene.ts';

/** What one mix costs, exactly. */
export interface MixCounts {
  readonly name: string;
  /** The same call with nothing attached: the function behind a nop. */
  readonly bare: Counts;
  readonly traced: Counts;
  /** Parts of the traced call; those that it does not have are left out. */
  readonly parts: Readonly<Partial<Record<Column, PartCounts>>>;
  /** Length of the image, bytes; 0 without one. */
  readonly imageBytes: number;
}

/** One part: the instructions of the image (or site), and of what it calls. */
export interface PartCounts {
  readonly own: Counts;
  readonly called: Counts;
}

/** Runs a mix once and counts. */
export async function countMix(revision: ManagedRevision, mix: Mix): Promise<MixCounts> {
  const bare = await countScene(revision, { ...mix, fentry: 0, fmodRet: 0, fexit: 0, retired: false });
  const traced = await countScene(revision, mix);
  return {
    name: mix.name,
    bare: bare.traced,
    traced: traced.traced,
    parts: traced.parts,
    imageBytes: traced.imageBytes,
  };
}

type SceneCounts = Pick<MixCounts, 'traced' | 'parts' | 'imageBytes'>;

async function countScene(revision: ManagedRevision, mix: Mix): Promise<SceneCounts> {
  const scene = await Scene.create(await createMachine({ record: true }), revision, mix);
  try {
    const { image } = scene;
    const partOf = parts(scene.entry, image);
    const { total, byColumn } = sum(recordCall(scene), partOf);
    return { traced: total, parts: byColumn, imageBytes: image?.length ?? 0 };
  } finally {
    scene.close();
  }
}

/** The instructions that one call of a scene executes. The scene's machine must record. */
export function recordCall(scene: Scene): ExecutedInsn[] {
  const { cpu } = scene;
  cpu.recorded();
  scene.call();
  return executed(cpu.recorded());
}

/** Where an instruction belongs by its address; undefined for what is called from somewhere. */
export type PartOf = (address: Kaddr) => Column | undefined;

/** How the instructions of a traced function and its image are told apart. */
export function parts(entry: Kaddr, image: TrampImage | undefined): PartOf {
  const code = image?.code();
  const body = addrAdd(entry, SITE_BYTES);
  return (address) => {
    if (address === entry) return 'site';
    if (address >= body && address < addrAdd(body, BODY_BYTES)) return 'original';
    if (image === undefined || code === undefined) return undefined;
    const offset = Number(address - image.image);
    return insnAt(code, offset) === undefined ? undefined : columnOf(code, offset);
  };
}

/** Room for the function behind its site. */
const BODY_BYTES = 11;

function sum(
  insns: readonly ExecutedInsn[],
  partOf: PartOf,
): { total: Counts; byColumn: MixCounts['parts'] } {
  const total = new Tally();
  const tallies = new Map<Column, { own: Tally; called: Tally }>();
  let column: Column = 'site';
  for (const insn of insns) {
    const own = partOf(insn.fetch.address);
    column = own ?? column;
    let part = tallies.get(column);
    if (part === undefined) {
      part = { own: new Tally(), called: new Tally() };
      tallies.set(column, part);
    }
    (own === undefined ? part.called : part.own).add(insn);
    total.add(insn);
  }
  const byColumn = COLUMNS.flatMap((name) => {
    const part = tallies.get(name);
    return part === undefined ? [] : [[name, { own: part.own.counts(), called: part.called.counts() }]];
  });
  return { total: total.counts(), byColumn: Object.fromEntries(byColumn) };
}
