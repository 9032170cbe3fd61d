import { describe, expect, it } from 'vitest';

interface Candidate {
  readonly path: string;
  readonly named: boolean;
  readonly link: boolean;
}

/** The script is plain JavaScript, so its types are written here. */
interface LibunicornScript {
  candidates(where: { root: string; env: Record<string, string>; platform: string }): Candidate[];
  installCommand(platform: string, osRelease: string): string | undefined;
  advice(platform: string, osRelease: string, why: string): string;
}

const script: LibunicornScript = await import(new URL('../../scripts/libunicorn.mjs', import.meta.url).href);

describe('search order', () => {
  const pathsOf = (env: Record<string, string>, platform = 'linux'): string[] =>
    script.candidates({ root: '/project', env, platform }).map(({ path }) => path);

  it('the project, the loader, then folders the loader does not look into', () => {
    expect(pathsOf({}).slice(0, 3)).toEqual([
      '/project/.cache/unicorn/libunicorn.so.2',
      'libunicorn.so.2',
      '/usr/local/lib/libunicorn.so.2',
    ]);
  });

  it('what TRAMPLAB_UNICORN names, and nothing else', () => {
    expect(pathsOf({ TRAMPLAB_UNICORN: '/opt/u.so' })).toEqual(['/opt/u.so']);
    expect(pathsOf({ TRAMPLAB_UNICORN: '' }).length).toBeGreaterThan(1);
  });

  it('by its name on macOS, Homebrew included', () => {
    expect(pathsOf({}, 'darwin')).toContain('libunicorn.2.dylib');
    expect(pathsOf({}, 'darwin')).toContain('/opt/homebrew/lib/libunicorn.2.dylib');
  });

  it('links exactly what the engine would not find by itself', () => {
    const all = script.candidates({ root: '/project', env: {}, platform: 'linux' });
    expect(all.slice(0, 2).some(({ link }) => link)).toBe(false);
    expect(all.slice(2).every(({ link }) => link)).toBe(true);
  });
});

describe('advice names the command of the system', () => {
  it.each([
    ['ID=debian\nVERSION_ID="12"\n', 'sudo apt-get install libunicorn2'],
    ['NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\n', 'sudo apt-get install libunicorn2'],
    ['ID=fedora\n', 'sudo dnf install unicorn'],
    [
      'ID="rocky"\nID_LIKE="rhel centos fedora"\n',
      'sudo dnf install epel-release && sudo dnf install unicorn',
    ],
    ['ID=manjaro\nID_LIKE=arch\n', 'sudo pacman -S unicorn'],
    ['ID=alpine\n', 'sudo apk add unicorn'],
    ['ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', 'sudo zypper install libunicorn2'],
  ])('%j', (osRelease, command) => {
    expect(script.installCommand('linux', osRelease)).toBe(command);
  });

  it('on macOS', () => {
    expect(script.installCommand('darwin', '')).toBe('brew install unicorn');
  });

  it('in one line, with the reason and the other way', () => {
    expect(script.advice('linux', 'ID=fedora', 'none is installed')).toBe(
      "libunicorn 2 is missing: none is installed; run 'sudo dnf install unicorn', " +
        'or set TRAMPLAB_UNICORN to the path of libunicorn.so.2',
    );
    expect(script.advice('linux', 'ID=plan9', 'none is installed')).toContain('install Unicorn 2');
  });
});
