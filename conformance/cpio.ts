/*
 * The initial file system of a guest: a cpio archive in the "newc" form that the kernel unpacks.
 * Kernel: Documentation/driver-api/early-userspace/buffer-format.rst
 */

/** A file, or a folder when it has no contents. */
export interface CpioEntry {
  /** Without a slash at the start; a folder comes before what is in it. */
  readonly name: string;
  readonly bytes?: Uint8Array;
  readonly executable?: boolean;
}

const MAGIC = '070701';
const FOLDER = 0o40755;
const FILE = 0o100644;
const PROGRAM = 0o100755;
/** Name of the entry that ends an archive. */
const TRAILER = 'TRAILER!!!';
/** Names and contents end at multiples of this, bytes. */
const ALIGN = 4;

/** The archive of some files; all of them belong to root. */
export function cpio(entries: readonly CpioEntry[]): Uint8Array {
  const parts = entries.flatMap(({ name, bytes, executable }, i) =>
    record(i + 1, name, bytes === undefined ? FOLDER : executable === true ? PROGRAM : FILE, bytes),
  );
  return Buffer.concat([...parts, ...record(0, TRAILER, 0, undefined)]);
}

function record(
  inode: number,
  name: string,
  mode: number,
  bytes: Uint8Array = new Uint8Array(),
): Uint8Array[] {
  const path = Buffer.from(`${name}\0`);
  // inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name, checksum
  const fields = [inode, mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, path.length, 0];
  const header = MAGIC + fields.map((field) => field.toString(16).padStart(8, '0')).join('');
  const named = Buffer.concat([Buffer.from(header), path]);
  return [padded(named), padded(bytes)];
}

function padded(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(Math.ceil(bytes.length / ALIGN) * ALIGN);
  whole.set(bytes);
  return whole;
}
