/** The kernel's error numbers that appear here, by their names. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  E2BIG: 7,
  EAGAIN: 11,
  ENOMEM: 12,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ERANGE: 34,
  EOPNOTSUPP: 95,
  ENOTSUPP: 524,
} as const;

export type ErrnoName = keyof typeof Errno;

/** The name of a positive error number, or its digits when it has none here. */
export function errnoName(errno: number): string {
  const found = Object.entries(Errno).find(([, number]) => number === errno);
  return found === undefined ? String(errno) : found[0];
}
