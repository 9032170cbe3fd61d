/*
 * libunicorn 2 and the few calls into it, bound once per process through koffi.
 *
 * Addresses go in as int64 numbers (kernel addresses are small negative ones, exactly): 20 to 30 %
 * cheaper per call than bigints. Pointers are numbers too. Neither leaves this folder.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import koffi, {} from 'koffi';
import { InputError } from '../../lib/index.js';
let loaded;
/** The library, found as openUnicorn says, bound once per process. @throws InputError as openUnicorn */
export function loadUnicorn() {
    loaded ??= bind(openUnicorn());
    return loaded;
}
/**
 * Opens the first of: `TRAMPLAB_UNICORN`, `.cache/unicorn/` of this project, the system's loader path.
 * @throws InputError when there is none; the message says how to get one
 */
export function openUnicorn() {
    const named = process.env['TRAMPLAB_UNICORN'];
    if (named !== undefined && named !== '') {
        try {
            return koffi.load(named);
        }
        catch (error) {
            throw new InputError('TRAMPLAB_UNICORN', undefined, `${named} cannot be loaded: ${reason(error)}`);
        }
    }
    const own = join(projectRoot(), '.cache', 'unicorn', 'libunicorn.so.2');
    const candidates = existsSync(own) ? [own] : [];
    candidates.push(process.platform === 'darwin' ? 'libunicorn.2.dylib' : 'libunicorn.so.2');
    let last;
    for (const candidate of candidates) {
        try {
            return koffi.load(candidate);
        }
        catch (error) {
            last = error;
        }
    }
    throw new InputError('libunicorn', undefined, `libunicorn 2 cannot be loaded (${reason(last)}): run \`npm run setup\`, or \`apt-get install libunicorn2\`, ` +
        'or name the library in TRAMPLAB_UNICORN');
}
function reason(error) {
    return String(error instanceof Error ? error.message.split('\n', 1)[0] : error);
}
/** The nearest folder above this file, built or not, that holds the project's package.json. */
function projectRoot() {
    let folder = dirname(fileURLToPath(import.meta.url));
    for (;;) {
        const manifest = join(folder, 'package.json');
        if (existsSync(manifest) && /"name":\s*"tramplab"/.test(readFileSync(manifest, 'utf8')))
            return folder;
        const parent = dirname(folder);
        if (parent === folder)
            return process.cwd();
        folder = parent;
    }
}
function bind(library) {
    const version = library.func('uint32_t uc_version(uintptr_t major, uintptr_t minor)')(0, 0);
    const major = version >>> 24;
    if (major !== 2) {
        throw new InputError('libunicorn', undefined, `version 2 is needed, this is ${major}: run \`npm run setup\``);
    }
    return {
        version: `${major}.${(version >>> 16) & 0xff}.${(version >>> 8) & 0xff}`,
        uc_open: library.func('int uc_open(int arch, int mode, uintptr_t out)'),
        uc_close: library.func('int uc_close(uintptr_t uc)'),
        uc_mem_map_ptr: library.func('int uc_mem_map_ptr(uintptr_t uc, int64_t address, size_t size, uint32_t perms, uintptr_t host)'),
        uc_mem_unmap: library.func('int uc_mem_unmap(uintptr_t uc, int64_t address, size_t size)'),
        uc_emu_start: library.func('int uc_emu_start(uintptr_t uc, int64_t begin, int64_t until, uint64_t timeout, size_t count)'),
        uc_emu_stop: library.func('int uc_emu_stop(uintptr_t uc)'),
        emuStartPointer: Number(koffi.address(library.symbol('uc_emu_start'))),
        emuStopPointer: Number(koffi.address(library.symbol('uc_emu_stop'))),
        uc_reg_write_batch: library.func('int uc_reg_write_batch(uintptr_t uc, uintptr_t ids, uintptr_t values, int count)'),
        uc_reg_read_batch: library.func('int uc_reg_read_batch(uintptr_t uc, uintptr_t ids, uintptr_t values, int count)'),
        uc_hook_add: library.func('int uc_hook_add(uintptr_t uc, uintptr_t out, int type, uintptr_t callback, uintptr_t userData, ' +
            'int64_t begin, int64_t end, int64_t insn)'),
        uc_ctl: library.func('int uc_ctl(uintptr_t uc, uint32_t control, int64_t a, int64_t b)'),
        uc_context_alloc: library.func('int uc_context_alloc(uintptr_t uc, uintptr_t out)'),
        uc_context_size: library.func('size_t uc_context_size(uintptr_t uc)'),
        uc_context_save: library.func('int uc_context_save(uintptr_t uc, uintptr_t context)'),
        uc_context_restore: library.func('int uc_context_restore(uintptr_t uc, uintptr_t context)'),
        uc_context_free: library.func('int uc_context_free(uintptr_t context)'),
    };
}
//# sourceMappingURL=library.js.map