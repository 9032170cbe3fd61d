import { type Kaddr } from '../lib/index.ts';
import { type ElfObject } from '../obj/index.ts';
import type { Kernel } from './kernel.ts';
import { KModule } from './module.ts';
/** Where a relocatable object goes: the modules area, or the kernel's own text as if it had been built in. */
export type Placement = 'module' | 'kernel';
/**
 * Loads an ELF file: allocate, link, write, then turn every trace site into its nop. On error nothing has changed.
 *
 * @param as where a relocatable object goes; a static executable is kernel text where it was linked
 * @throws InputError what is wrong with the file; undefined symbols by name
 */
export declare function loadModule(kernel: Kernel, object: ElfObject, name: string, as?: Placement): KModule;
/** What a name means to code that is loaded now: a kernel function, or a global symbol of what is there already. */
export declare function resolveSymbol(kernel: Kernel, name: string): Kaddr | undefined;
