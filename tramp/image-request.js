/*
 * What an image is made with, and how much room it needs.
 * Kernel: bpf_trampoline_update, before anything is allocated
 */
import { BpfTrampImage, ENDBR_BYTES, isEndbr, trampolineSize, } from '../jit/index.js';
import { errnoName, KernelError } from '../lib/index.js';
import { IMAGE_BYTES } from './image-memory.js';
import { PROG_KINDS } from './prog.js';
export function imageRequest(kernel, tr) {
    const { bugs, rules } = kernel;
    const { addr, model } = tr.target;
    const { fentry, fmod_ret: fmodRet, fexit } = tr.links;
    const callsOriginal = fexit.length > 0 || (fmodRet.length > 0 && !bugs.has('fmod-ret-alone'));
    const asked = bugs.has('ip-of-fentry') ? PROG_KINDS.slice(0, 1) : PROG_KINDS;
    const wantsIp = asked.some((kind) => tr.links[kind].some(({ prog }) => prog.callsGetFuncIp));
    return {
        origCall: addr,
        argSizes: model.args.map(({ sizeBytes }) => sizeBytes),
        retSize: model.ret.sizeBytes,
        flags: rules.flags({ kept: tr.flags, callsOriginal, wantsIp }),
        fentry: fentry.map((link) => link.ref()),
        fmodRet: fmodRet.map((link) => link.ref()),
        fexit: fexit.map((link) => link.ref()),
        helpers: kernel.helpers,
        config: buildConfig(kernel, addr),
        name: model.name,
    };
}
/** How the kernel was built, and what is at the traced function's address. */
function buildConfig({ config, machine }, addr) {
    if (config.ibt !== true)
        return config;
    return { ...config, origCallStartsWithEndbr: isEndbr(machine.memory.bytes(addr, ENDBR_BYTES)) };
}
/**
 * Room for an image, bytes: a page, or what the emitter says that it takes.
 * @throws KernelError what the emitter refuses then; E2BIG for more than a page, which it has refused before
 */
export function imageSize(kernel, request) {
    const { emitter, fail, machine, rules } = kernel;
    if (rules.imageMemory === 'page')
        return IMAGE_BYTES;
    fail.pass('size');
    // The question has a struct of its own. Where its page is, nobody sees: taken for the first of the modules' text.
    const im = machine.memory.kmalloc(BpfTrampImage.size, 'bpf_tramp_image of a size query');
    const size = trampolineSize(emitter, { ...request, im }, machine.layout.modulesText.start);
    machine.memory.kfree(im);
    if (size < 0) {
        const code = errnoName(-size);
        throw new KernelError(code, 'arch_bpf_trampoline_size', `${request.name}: no image of it can be made`);
    }
    if (size > IMAGE_BYTES) {
        throw new KernelError('E2BIG', 'bpf_trampoline_update', `${request.name}: ${size} bytes`);
    }
    return size;
}
//# sourceMappingURL=image-request.js.map