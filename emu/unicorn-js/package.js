/*
 * The part of `@alexaltea/unicorn-js` (2.1.4) that is used here, by its own names, and how it is found.
 * It is an optional peer: nothing of it is installed with this package.
 */
var __rewriteRelativeImportExtension = (this && this.__rewriteRelativeImportExtension) || function (path, preserveJsx) {
    if (typeof path === "string" && /^\.\.?\//.test(path)) {
        return path.replace(/\.(tsx)$|((?:\.d)?)((?:\.[^./]+?)?)\.([cm]?)ts$/i, function (m, tsx, d, ext, cm) {
            return tsx ? preserveJsx ? ".jsx" : ".js" : d && (!ext || !cm) ? m : (d + ext + "." + cm.toLowerCase() + "js");
        });
    }
    return path;
};
import { pathToFileURL } from 'node:url';
import { InputError } from '../../lib/index.js';
const PACKAGE = '@alexaltea/unicorn-js';
/**
 * The factory of the file in `TRAMPLAB_UNICORN_JS`, or of the package.
 * @throws InputError when there is neither
 */
export async function loadUnicornJs() {
    const named = process.env['TRAMPLAB_UNICORN_JS'];
    const specifier = named === undefined || named === '' ? PACKAGE : pathToFileURL(named).href;
    let loaded;
    try {
        loaded = await import(__rewriteRelativeImportExtension(specifier));
    }
    catch {
        throw new InputError('unicorn.js', undefined, `${named === undefined || named === '' ? PACKAGE : named} cannot be loaded: install the package, or name its ` +
            'file in TRAMPLAB_UNICORN_JS');
    }
    const factory = factoryIn(loaded);
    if (factory === undefined) {
        throw new InputError('unicorn.js', undefined, `${named ?? PACKAGE} exports no MUnicorn function`);
    }
    return factory;
}
/** The factory is the module, its default export or its export `MUnicorn`, as bundlers have it. */
function factoryIn(loaded) {
    if (typeof loaded === 'function')
        return loaded;
    if (typeof loaded !== 'object' || loaded === null)
        return undefined;
    const { MUnicorn, default: main } = loaded;
    return factoryIn(MUnicorn) ?? factoryIn(main);
}
//# sourceMappingURL=package.js.map