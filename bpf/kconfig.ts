import { InputError } from '../lib/index.ts';
import { type Btf, type BtfType, bareType, shown } from '../obj/index.ts';
import type { BpfGlobals, BpfObject, BpfVariable } from './model.ts';

/*
 * The contents of `.kconfig`: what programs see of the kernel's version and configuration.
 * libbpf: bpf_object__resolve_externs, set_kcfg_value_*.
 */

/** A kernel as `__kconfig` variables see it. */
export interface KernelConfig {
  /** `LINUX_KERNEL_VERSION`, e.g. `[5, 15, 0]`. */
  readonly version: readonly [number, number, number];
  /** As `.config` has it, e.g. `CONFIG_HZ` -> `250`, `CONFIG_PREEMPT` -> `y`, a text in double quotes. */
  readonly options: ReadonlyMap<string, string>;
  /** Whether bpf_get_attach_cookie is there. */
  readonly hasBpfCookie: boolean;
}

/** libbpf: enum libbpf_tristate. */
const TRISTATE: Readonly<Record<string, number>> = { n: 0, y: 1, m: 2 };

/**
 * The bytes of a `.kconfig` section for one kernel. What is weak and not in the configuration is 0.
 *
 * @throws InputError for a variable that the kernel does not have, or whose type does not take its value
 */
export function kconfigBytes(object: BpfObject, section: BpfGlobals, kernel: KernelConfig): Uint8Array {
  const bytes = new Uint8Array(section.sizeBytes);
  if (object.btf === undefined) return bytes;
  for (const variable of section.variables) {
    const value = virtualValue(variable.name, kernel) ?? kernel.options.get(variable.name);
    if (value !== undefined) bytes.set(encodeValue(object, object.btf, variable, value), variable.offset);
    else if (!variable.weak) {
      throw new InputError(
        object.file,
        undefined,
        `${shown(variable.name)} is not in the kernel's configuration: give it a value, or declare it __weak`,
      );
    }
  }
  return bytes;
}

/** What libbpf knows by itself. */
function virtualValue(
  name: string,
  { version: [major, minor, patch], hasBpfCookie }: KernelConfig,
): string | undefined {
  switch (name) {
    case 'LINUX_KERNEL_VERSION':
      return String(major * 0x1_0000 + minor * 0x100 + Math.min(patch, 255));
    case 'LINUX_HAS_BPF_COOKIE':
      return hasBpfCookie ? 'y' : 'n';
    // x86-64 has had the wrappers of CONFIG_ARCH_HAS_SYSCALL_WRAPPER since v4.17.
    case 'LINUX_HAS_SYSCALL_WRAPPER':
      return 'y';
    default:
      return undefined;
  }
}

/** A value as the variable's type has it. */
function encodeValue(object: BpfObject, btf: Btf, variable: BpfVariable, value: string): Uint8Array {
  const refuse = (what: string): never => {
    throw new InputError(
      object.file,
      undefined,
      `${shown(variable.name)} is ${what} in the program, but ${shown(value)} in the kernel's configuration`,
    );
  };
  const { type } = bareType(btf, variable.type);
  switch (type.kind) {
    case 'array': {
      const text = /^"(.*)"$/s.exec(value)?.[1];
      if (text === undefined) return refuse('text');
      // Cut to the array, which keeps a 0 at its end.
      return new TextEncoder().encode(text).subarray(0, Math.max(0, variable.sizeBytes - 1));
    }
    case 'enum':
      return littleEndian(BigInt(TRISTATE[value] ?? refuse('a tristate')), variable.sizeBytes);
    case 'int':
      return littleEndian(integerValue(type, value, refuse), variable.sizeBytes);
    default:
      return refuse(`a ${type.kind}`);
  }
}

function integerValue(
  { bool, signed, sizeBytes }: Extract<BtfType, { kind: 'int' }>,
  value: string,
  refuse: (what: string) => never,
): bigint {
  if (bool) return value === 'y' ? 1n : value === 'n' ? 0n : refuse('a bool');
  // A char holds y, n or m as a letter.
  if (sizeBytes === 1 && TRISTATE[value] !== undefined) return BigInt(value.charCodeAt(0));
  if (!/^-?(0x[0-9a-fA-F]+|\d+)$/.test(value)) return refuse('an integer');
  const magnitude = BigInt(value.replace('-', ''));
  const number = value.startsWith('-') ? -magnitude : magnitude;
  const bits = 8 * sizeBytes;
  const kept = signed ? BigInt.asIntN(bits, number) : BigInt.asUintN(bits, number);
  return kept === number ? number : refuse(`an integer of ${sizeBytes} bytes`);
}

function littleEndian(value: bigint, sizeBytes: number): Uint8Array {
  return Uint8Array.from({ length: sizeBytes }, (_, i) => Number(BigInt.asUintN(8, value >> BigInt(8 * i))));
}
