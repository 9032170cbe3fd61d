/* Sizes of C types as the x86-64 ABI lays them out (System V, 3.1.2), for structs that are written out. */

import { type CType, resolved } from './ctype.ts';

/** Bytes that a value takes, and what its address is a multiple of. */
interface Extent {
  readonly sizeBytes: number;
  readonly alignBytes: number;
}

/** The size of a struct with these members, in this order; undefined when one of them has none that is known. */
export function structBytes(members: readonly CType[]): number | undefined {
  return extentOfStruct(members)?.sizeBytes;
}

function extentOfStruct(members: readonly CType[]): Extent | undefined {
  let [end, alignBytes] = [0, 1];
  for (const member of members) {
    const extent = extentOf(member);
    if (extent === undefined) return undefined;
    alignBytes = Math.max(alignBytes, extent.alignBytes);
    end = roundUp(end, extent.alignBytes) + extent.sizeBytes;
  }
  return { sizeBytes: roundUp(end, alignBytes), alignBytes };
}

function extentOf(type: CType): Extent | undefined {
  const bare = resolved(type);
  switch (bare.kind) {
    case 'int':
    case 'enum':
      return { sizeBytes: bare.sizeBytes, alignBytes: bare.sizeBytes };
    case 'pointer':
      return { sizeBytes: 8, alignBytes: 8 };
    case 'array': {
      const element = extentOf(bare.of);
      if (element === undefined || bare.length === undefined) return undefined;
      return { ...element, sizeBytes: element.sizeBytes * bare.length };
    }
    case 'struct':
      return bare.members === undefined ? undefined : extentOfStruct(bare.members);
    default:
      return undefined;
  }
}

function roundUp(bytes: number, to: number): number {
  return Math.ceil(bytes / to) * to;
}
