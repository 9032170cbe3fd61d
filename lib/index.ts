export { addrAdd, addrDistance, alignDown, alignUp, hex16, hex64, type Kaddr, kaddr } from './addr.ts';
export { fromHex, toHex } from './bytes.ts';
export { Errno, type ErrnoName, errnoName } from './errno.ts';
export { Bug, EmitError, InputError, KernelError } from './errors.ts';
export { makeFolders } from './folders.ts';
export { asJson } from './json.ts';
