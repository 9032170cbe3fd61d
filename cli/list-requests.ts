import { formatListing, type ListingRow, listCode, prepareTrampoline } from '../jit/index.ts';
import { errnoName, hex64 } from '../lib/index.ts';
import { type Fields, stringify } from './fields.ts';
import { filterLines } from './json-lines.ts';
import { paint } from './paint.ts';
import { readEmitRequest } from './request.ts';

/** Lists what `tramplab emit` would have emitted. */
export function listRequests(json: boolean): Promise<number> {
  return filterLines((fields, id) => {
    const result = listRequest(fields);
    if (json) return stringify({ id, ...result });
    const title = id === null ? 'image' : `image ${typeof id === 'string' ? id : JSON.stringify(id)}`;
    if (result.listing === undefined) return `${title}: -${errnoName(-result.ret)}, ${result.why}\n`;
    const [first] = result.listing;
    const heading = `${title}: ${result.length} bytes at ${hex64(first?.address ?? 0n)}`;
    const warning = result.warning === undefined ? '' : `warning: ${result.warning}\n`;
    return `${paint('heading', heading)}\n${warning}\n${formatListing(result.listing, paint)}`;
  });
}

type Listed =
  | {
      readonly ret: number;
      readonly length: number;
      readonly warning: string | undefined;
      readonly listing: readonly ListingRow[];
    }
  | { readonly ret: number; readonly listing?: never; readonly why: string };

function listRequest(fields: Fields): Listed {
  const { revision, request } = readEmitRequest(fields);
  const result = prepareTrampoline(revision, request, { provenance: true });
  if (result.bytes === undefined) return { ret: result.ret, why: result.why };
  return {
    ret: result.ret,
    length: result.bytes.length,
    warning: result.warning,
    listing: result.code === undefined ? [] : listCode(result.code, request.image),
  };
}
