/* Mapping of given addresses: one region per run of pages, allocators' areas through their allocators. */

import type { GuestMemory } from '../../../emu/index.ts';
import { KERNEL_LAYOUT } from '../../../emu/layout.ts';
import { addrAdd, alignDown, alignUp, Bug, hex64, type Kaddr, kaddr } from '../../../lib/index.ts';

const { modulesText, vmalloc } = KERNEL_LAYOUT;
const PAGE = 4096;

/** Bytes that must be there. */
export interface Wanted {
  readonly start: Kaddr;
  readonly sizeBytes: number;
  readonly perms: 'rw' | 'rx';
}

/**
 * Maps everything that is wanted and not there yet. Call it before anything else takes module text.
 * Addresses in the module area and in the vmalloc area are reached by one large allocation each.
 */
export function mapAll(memory: GuestMemory, wanted: readonly Wanted[]): void {
  const inside = ({ start }: Wanted, area: { start: Kaddr; end: Kaddr }): boolean =>
    start >= area.start && start < area.end;
  const highest = (area: { start: Kaddr; end: Kaddr }): Kaddr =>
    wanted
      .filter((range) => inside(range, area))
      .reduce((end, range) => (end > lastPage(range) ? end : lastPage(range)), area.start);
  const text = Number(highest(modulesText) - modulesText.start);
  if (text > 0) memory.allocText(text, 'golden images');
  const data = Number(highest(vmalloc) - vmalloc.start);
  if (data > 0) memory.vmalloc(data, 'golden programs');

  const pages = new Map<Kaddr, Wanted['perms']>();
  for (const range of wanted) {
    for (let page = alignDown(range.start, PAGE); page < lastPage(range); page = addrAdd(page, PAGE)) {
      if (memory.regionAt(page) !== undefined) continue;
      if ((pages.get(page) ?? range.perms) !== range.perms) throw new Bug(`text and data in ${hex64(page)}`);
      pages.set(page, range.perms);
    }
  }
  let run: { start: Kaddr; end: Kaddr; perms: Wanted['perms'] } | undefined;
  const flush = (): void => {
    if (run !== undefined) memory.map(run.start, Number(run.end - run.start), run.perms, 'golden addresses');
  };
  for (const [page, perms] of [...pages].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (run?.end === page && run.perms === perms) run.end = addrAdd(page, PAGE);
    else {
      flush();
      run = { start: page, end: addrAdd(page, PAGE), perms };
    }
  }
  flush();
}

function lastPage({ start, sizeBytes }: Wanted): Kaddr {
  return alignUp(kaddr(start + BigInt(sizeBytes)), PAGE);
}
