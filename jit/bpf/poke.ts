/*
 * A direct tail call when its map's slot changes. While the slot is empty nobody may pass the bypass; so the
 * target is written first and the bypass opened last, and closed first and the target taken away last, when no CPU
 * can be in between any more.
 */

import { addrAdd, type Kaddr } from '../../lib/index.ts';
import { POKE_BYTES, type PokeRequest } from '../poke.ts';
import type { PokeDescriptor } from './program.ts';

/** One step: text to be patched, or a wait for a grace period of RCU. */
export type TailCallPoke =
  | { readonly place: 'bypass' | 'target'; readonly poke: PokeRequest }
  | { readonly place: 'synchronize_rcu' };

/**
 * What has to be done, in order, when the program in a slot changes; nothing when it stays empty. With `before` null
 * also what the end of a compilation does, when the slot is filled already.
 *
 * @param image address of the image that holds the tail call.
 * @param before, after addresses of the functions of the programs in the slot; null for none.
 *
 * Kernel: bpf_arch_poke_desc_update and bpf_tail_call_direct_fixup, arch/x86/net/bpf_jit_comp.c;
 * prog_array_map_poke_run, kernel/bpf/arraymap.c (v5.15)
 */
export function tailCallPokes(
  image: Kaddr,
  { bypass, target, adjOff }: PokeDescriptor,
  before: Kaddr | null,
  after: Kaddr | null,
): readonly TailCallPoke[] {
  const entry = (func: Kaddr | null): Kaddr | null => (func === null ? null : addrAdd(func, adjOff));
  const out = addrAdd(image, target + POKE_BYTES);
  const jump = (place: 'bypass' | 'target', oldAddr: Kaddr | null, newAddr: Kaddr | null): TailCallPoke => ({
    place,
    poke: {
      ip: addrAdd(image, place === 'bypass' ? bypass : target),
      type: 'JUMP',
      oldAddr,
      newAddr,
      isText: true,
    },
  });
  if (after !== null) {
    const retarget = jump('target', entry(before), entry(after));
    return before === null ? [retarget, jump('bypass', out, null)] : [retarget];
  }
  if (before === null) return [];
  return [jump('bypass', null, out), { place: 'synchronize_rcu' }, jump('target', entry(before), null)];
}
