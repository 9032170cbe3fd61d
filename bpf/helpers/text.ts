/* Helpers on text. Kernel: kernel/bpf/helpers.c, kernel/trace/bpf_trace.c */

import { Errno } from '../../lib/index.ts';
import { format } from './format.ts';
import { type Helper, type HelperCall, low32 } from './helper.ts';

/** Most values of bpf_trace_vprintk and bpf_snprintf. Kernel: MAX_BPRINTF_VARARGS */
const MAX_VALUES = 12;
/** Longest line of the trace log. Kernel: BPF_TRACE_PRINTK_SIZE, MAX_BPRINTF_BUF */
const MAX_LINE = 1024;

/** A format that ends with 0 within its size; undefined when it does not. */
function formatAt({ world }: HelperCall, address: bigint, sizeBytes: number): string | undefined {
  const bytes = world.guest.copy(address, sizeBytes);
  if (bytes.at(-1) !== 0) return undefined;
  return String.fromCharCode(...bytes.subarray(0, bytes.indexOf(0)));
}

/** The values that lie in memory, 8 bytes each; undefined when their number cannot be. */
function valuesAt({ world }: HelperCall, address: bigint, sizeBytes: number): bigint[] | undefined {
  if (sizeBytes % 8 !== 0 || sizeBytes > 8 * MAX_VALUES || (sizeBytes > 0 && address === 0n))
    return undefined;
  return Array.from({ length: sizeBytes / 8 }, (_, i) => world.guest.read(address + BigInt(8 * i), 8));
}

/** Kernel: bpf_trace_printk, bpf_trace_vprintk */
function print(call: HelperCall, text: string | undefined, values: readonly bigint[] | undefined): number {
  const line = text === undefined || values === undefined ? undefined : format(call.world, text, values);
  if (line === undefined) return -Errno.EINVAL;
  const cut = line.slice(0, MAX_LINE - 1);
  call.world.print(cut);
  return cut.length;
}

function snprintf(call: HelperCall): number {
  const { world, args } = call;
  const [to, size, from, data, dataSize] = args;
  const values = valuesAt(call, data, low32(dataSize));
  if (values === undefined) return -Errno.EINVAL;
  const text = format(world, String.fromCharCode(...world.guest.text(from, MAX_LINE)), values);
  if (text === undefined) return -Errno.EINVAL;
  const sizeBytes = low32(size);
  if (sizeBytes > 0) {
    const bytes = Uint8Array.from(text.slice(0, sizeBytes - 1), (char) => char.charCodeAt(0));
    world.guest.store(to, Uint8Array.of(...bytes, 0));
  }
  return text.length + 1;
}

const BASES: readonly bigint[] = [0n, 8n, 10n, 16n];

/** Kernel: bpf_strtol, bpf_strtoul, __bpf_strtoull */
function parse(call: HelperCall, signed: boolean): number {
  const { world, args } = call;
  const [from, size, flags, to] = args;
  if (size === 0n || !BASES.includes(flags)) return -Errno.EINVAL;
  const text = String.fromCharCode(...world.guest.copy(from, Number(size)));
  const [, space = '', sign = '', rest = ''] = /^(\s*)(-?)(.*)$/s.exec(text) ?? [];
  if (sign !== '' && !signed) return -Errno.EINVAL;
  const prefix = /^0x(?=[0-9a-f])/i.test(rest) && (flags === 0n || flags === 16n) ? rest.slice(0, 2) : '';
  const base = flags !== 0n ? Number(flags) : prefix !== '' ? 16 : rest.startsWith('0') ? 8 : 10;
  const digits = (base === 16 ? /^[0-9a-f]+/i : base === 8 ? /^[0-7]+/ : /^[0-9]+/).exec(
    rest.slice(prefix.length),
  )?.[0];
  if (digits === undefined) return -Errno.EINVAL;
  let value = 0n;
  for (const digit of digits) value = value * BigInt(base) + BigInt(Number.parseInt(digit, base));
  const limit = signed ? (1n << 63n) - (sign === '' ? 1n : 0n) : (1n << 64n) - 1n;
  if (value > limit) return -Errno.ERANGE;
  world.guest.write(to, 8, BigInt.asUintN(64, sign === '' ? value : -value));
  return space.length + sign.length + prefix.length + digits.length;
}

/** Kernel: strncmp */
function compare({ world, args: [one, size, other] }: HelperCall): number {
  for (let i = 0n; i < size; i++) {
    const [a, b] = [world.guest.read(one + i, 1), world.guest.read(other + i, 1)];
    if (a !== b) return a < b ? -1 : 1;
    if (a === 0n) break;
  }
  return 0;
}

export const TEXT_HELPERS: readonly Helper[] = [
  {
    id: 6,
    name: 'bpf_trace_printk',
    since: 'v5.13',
    doc: 'characters written to the trace log; EINVAL for a format that it does not take. At most 3 values',
    run: (call) => {
      const [from, size, ...values] = call.args;
      return print(call, formatAt(call, from, low32(size)), values);
    },
  },
  {
    id: 105,
    name: 'bpf_strtol',
    since: 'v5.13',
    doc: 'characters that the number took; EINVAL, ERANGE',
    run: (call) => parse(call, true),
  },
  {
    id: 106,
    name: 'bpf_strtoul',
    since: 'v5.13',
    doc: 'as bpf_strtol, without a sign',
    run: (call) => parse(call, false),
  },
  {
    id: 165,
    name: 'bpf_snprintf',
    since: 'v5.13',
    doc: 'characters that there would be room needed for, the 0 included; EINVAL',
    run: snprintf,
  },
  {
    id: 177,
    name: 'bpf_trace_vprintk',
    since: 'v6.1',
    doc: 'as bpf_trace_printk, with up to 12 values from memory',
    run: (call) => {
      const [from, size, data, dataSize] = call.args;
      return print(call, formatAt(call, from, low32(size)), valuesAt(call, data, low32(dataSize)));
    },
  },
  {
    id: 182,
    name: 'bpf_strncmp',
    since: 'v6.1',
    doc: '-1, 0 or 1, by the first characters that differ',
    run: compare,
  },
];
