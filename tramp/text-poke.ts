import { decidePoke, POKE_BYTES, type PokeType } from '../jit/index.ts';
import { Bug, type ErrnoName, errnoName, hex64, type Kaddr, KernelError } from '../lib/index.ts';
import type { Kernel } from './kernel.ts';

/**
 * Replaces the nop, call or jump at `ip` by another, on every CPU at once.
 *
 * @param oldAddr where the present one goes; null when a nop is expected
 * @param newAddr where the new one shall go; null for a nop
 * @returns false when there was nothing to do
 * @throws KernelError EINVAL outside kernel and BPF text, ERANGE out of reach, EBUSY when something else stands there
 *
 * Kernel: bpf_arch_text_poke, arch/x86/net/bpf_jit_comp.c
 */
export function textPoke(
  kernel: Kernel,
  ip: Kaddr,
  type: PokeType,
  oldAddr: Kaddr | null,
  newAddr: Kaddr | null,
): boolean {
  const { memory } = kernel.machine;
  const isText = kernel.isPokableText(ip);
  const prior = isText ? memory.bytes(ip, POKE_BYTES) : new Uint8Array(POKE_BYTES);
  const { ret, write } = decidePoke({ ip, type, oldAddr, newAddr, isText }, prior);
  if (ret < 0) throw new KernelError(errnoName(-ret) as ErrnoName, 'bpf_arch_text_poke', `at ${hex64(ip)}`);
  if (write === undefined) return false;
  if (ret !== 0) throw new Bug('a poke that does nothing has nothing to write');
  kernel.machine.patchText(ip, write);
  return true;
}
