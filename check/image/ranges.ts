/* Mapping of given addresses: one region per run of pages, allocators' areas through their allocators. */

import type { AddressRange, Machine } from '../../emu/index.ts';
import { addrAdd, alignDown, alignUp, hex64, InputError, type Kaddr, kaddr } from '../../lib/index.ts';

const PAGE = 4096;

/** Bytes that must be there. */
export interface Wanted {
  /** What is there, for messages. */
  readonly what: string;
  readonly start: Kaddr;
  readonly sizeBytes: number;
  readonly perms: 'rw' | 'rx';
}

/**
 * Maps everything that is wanted and not there yet. Call it before anything else takes module text.
 * Addresses in the module area and in the vmalloc area are reached by one large allocation each.
 *
 * @throws InputError naming what cannot be mapped, or where text and data share a page
 */
export function mapAll({ memory, layout }: Machine, wanted: readonly Wanted[]): void {
  const inside = ({ start }: Wanted, area: AddressRange): boolean => start >= area.start && start < area.end;
  const highest = (area: AddressRange): Kaddr =>
    wanted
      .filter((range) => inside(range, area))
      .reduce((end, range) => (end > lastPage(range) ? end : lastPage(range)), area.start);
  const text = Number(highest(layout.modulesText) - layout.modulesText.start);
  if (text > 0) memory.allocText(text, 'given images');
  const data = Number(highest(layout.vmalloc) - layout.vmalloc.start);
  if (data > 0) memory.vmalloc(data, 'given programs');

  const pages = new Map<Kaddr, Wanted>();
  for (const range of wanted) {
    for (let page = alignDown(range.start, PAGE); page < lastPage(range); page = addrAdd(page, PAGE)) {
      if (memory.regionAt(page) !== undefined) continue;
      const other = pages.get(page);
      if (other !== undefined && other.perms !== range.perms) {
        throw new InputError(
          range.what,
          undefined,
          `is in one page with ${other.what}, at ${hex64(page)}: text and data cannot be`,
        );
      }
      pages.set(page, range);
    }
  }
  let run: { readonly start: Kaddr; end: Kaddr; readonly first: Wanted } | undefined;
  const flush = (): void => {
    if (run === undefined) return;
    memory.map(run.start, Number(run.end - run.start), run.first.perms, run.first.what);
  };
  for (const [page, range] of [...pages].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (run?.end === page && run.first.perms === range.perms) run.end = addrAdd(page, PAGE);
    else {
      flush();
      run = { start: page, end: addrAdd(page, PAGE), first: range };
    }
  }
  flush();
}

function lastPage({ start, sizeBytes }: Wanted): Kaddr {
  return alignUp(kaddr(start + BigInt(sizeBytes)), PAGE);
}
