/*
 * What an image is made with, and how much room it needs.
 * Kernel: bpf_trampoline_update, before anything is allocated
 */

import {
  BpfTrampImage,
  ENDBR_BYTES,
  isEndbr,
  type ProgRef,
  type TrampolineConfig,
  type TrampolineRequest,
  trampolineSize,
} from '../jit/index.ts';
import { type ErrnoName, errnoName, type Kaddr, KernelError } from '../lib/index.ts';
import { IMAGE_BYTES } from './image-memory.ts';
import type { Kernel } from './kernel.ts';
import type { TrampLink } from './link.ts';
import { PROG_KINDS } from './prog.ts';
import type { Trampoline } from './trampoline.ts';

/** A request but for its place. */
export type Unplaced = Omit<TrampolineRequest, 'image' | 'imageSize' | 'im'>;

export function imageRequest(kernel: Kernel, tr: Trampoline): Unplaced {
  const { bugs, rules } = kernel;
  const { addr, model } = tr.target;
  const { fentry, fmod_ret: fmodRet, fexit } = tr.links;
  const callsOriginal = fexit.length > 0 || (fmodRet.length > 0 && !bugs.has('fmod-ret-alone'));
  const asked = bugs.has('ip-of-fentry') ? PROG_KINDS.slice(0, 1) : PROG_KINDS;
  const wantsIp = asked.some((kind) => tr.links[kind].some(({ prog }) => prog.callsGetFuncIp));
  const forgets = bugs.has('share-forgotten') && tr.curImage !== undefined;
  return {
    origCall: addr,
    argSizes: model.args.map(({ sizeBytes }) => sizeBytes),
    retSize: model.ret.sizeBytes,
    flags: rules.flags({ kept: forgets ? 0 : tr.flags, callsOriginal, wantsIp }),
    fentry: refs(kernel, fentry),
    fmodRet: refs(kernel, fmodRet),
    fexit: refs(kernel, fexit),
    helpers: kernel.helpers,
    config: buildConfig(kernel, addr),
    name: model.name,
  };
}

function refs({ bugs }: Kernel, links: readonly TrampLink[]): ProgRef[] {
  const newest = links[0]?.cookie ?? 0n;
  return links.map((link) => (bugs.has('cookie-lost') ? { ...link.ref(), cookie: newest } : link.ref()));
}

/** How the kernel was built, and what is at the traced function's address. */
function buildConfig({ config, machine }: Kernel, addr: Kaddr): TrampolineConfig {
  if (config.ibt !== true) return config;
  return { ...config, origCallStartsWithEndbr: isEndbr(machine.memory.bytes(addr, ENDBR_BYTES)) };
}

/**
 * Room for an image, bytes: a page, or what the emitter says that it takes.
 * @throws KernelError what the emitter refuses then; E2BIG for more than a page, which it has refused before
 */
export function imageSize(kernel: Kernel, request: Unplaced): number {
  const { bugs, emitter, fail, machine, rules } = kernel;
  if (rules.imageMemory === 'page') return IMAGE_BYTES;
  fail.pass('size');
  // The question has a struct of its own. Where its page is, nobody sees: taken for the first of the modules' text.
  const im = machine.memory.kmalloc(BpfTrampImage.size, 'bpf_tramp_image of a size query');
  const size = trampolineSize(emitter, { ...request, im }, machine.layout.modulesText.start);
  machine.memory.kfree(im);
  if (size < 0) {
    const code = errnoName(-size) as ErrnoName;
    throw new KernelError(code, 'arch_bpf_trampoline_size', `${request.name}: no image of it can be made`);
  }
  if (size > IMAGE_BYTES) {
    throw new KernelError('E2BIG', 'bpf_trampoline_update', `${request.name}: ${size} bytes`);
  }
  return bugs.has('room-of-a-page') ? IMAGE_BYTES : size;
}
