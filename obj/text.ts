/** How names out of a foreign file are shown in messages. */

/**
 * A name taken from a file, made safe for one line of a message: control characters, quotes and
 * anything outside ASCII become `\xNN`, and a long name is cut.
 */
export function shown(name: string): string {
  const cut = name.length > 128 ? `${name.slice(0, 128)}...` : name;
  return cut.replace(
    /[^\x20-\x7e]|[\\"]/g,
    (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}
