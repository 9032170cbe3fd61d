import { type TrampolineRequest } from '../jit/index.ts';
import type { Kernel } from './kernel.ts';
import type { Trampoline } from './trampoline.ts';
/** A request but for its place. */
export type Unplaced = Omit<TrampolineRequest, 'image' | 'imageSize' | 'im'>;
export declare function imageRequest(kernel: Kernel, tr: Trampoline): Unplaced;
/**
 * Room for an image, bytes: a page, or what the emitter says that it takes.
 * @throws KernelError what the emitter refuses then; E2BIG for more than a page, which it has refused before
 */
export declare function imageSize(kernel: Kernel, request: Unplaced): number;
