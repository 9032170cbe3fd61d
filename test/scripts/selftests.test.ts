import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { type BpfPrograms, createLab, type Lab } from '../../lab/index.ts';
import { Scheduler } from '../../tramp/index.ts';

interface Case {
  readonly name: string;
  readonly since: string;
  readonly refusedWith?: RegExp;
  readonly apart?: { readonly programs: readonly string[]; readonly why: string };
  readonly run: (world: {
    readonly lab: Lab;
    readonly load: (without?: readonly string[]) => BpfPrograms;
    readonly check: (what: string, found: unknown, wanted: unknown) => void;
  }) => void;
}

interface Result {
  readonly outcome: string;
  readonly checks: number;
  readonly why: string;
}

/** The scripts are plain JavaScript, so their types are written here. */
interface RunScript {
  runCase(
    library: object,
    one: Case,
    options: {
      readonly object: string;
      readonly targets: string;
      readonly revisions: readonly string[];
      readonly modes: readonly { readonly engine: string; readonly jited: boolean }[];
    },
  ): Promise<Map<string, Result>>;
}

const url = (path: string): URL => new URL(`../../${path}`, import.meta.url);
const { runCase }: RunScript = await import(url('scripts/selftests/run.mjs').href);
const { CASES }: { CASES: readonly Case[] } = await import(url('scripts/selftests/cases.mjs').href);

describe('how a case is judged', () => {
  const fixture = (name: string): string => fileURLToPath(url(`test/fixtures/bpf/${name}`));

  const judge = async (object: string, one: Partial<Case>): Promise<Result | undefined> => {
    const results = await runCase(
      { createLab, Scheduler },
      { name: object, since: 'v5.13', run: ({ load }) => void load(), ...one },
      {
        object: fixture(object),
        targets: fixture('targets.o'),
        revisions: ['v5.13', 'v6.1'],
        modes: [true, false].map((jited) => ({ engine: 'unicorn', jited })),
      },
    );
    return results.get('v5.13');
  };

  /** Asks for the result of the traced function that is called. */
  const asking =
    (wanted: bigint): Case['run'] =>
    ({ lab, load, check }) => {
      load().attachAll();
      check('inner_step(4)', lab.call('inner_step', [4]).ret, wanted);
    };

  it('passed when all is equal, in every mode', async () => {
    expect(await judge('fexit.bpf.o', { run: asking(8n) })).toEqual({
      outcome: 'passed',
      checks: 2,
      why: '',
    });
  });

  it('failed with the first difference, and where', async () => {
    expect(await judge('fexit.bpf.o', { run: asking(9n) })).toMatchObject({
      outcome: 'failed',
      why: 'unicorn, compiled: inner_step(4) is 8, not 9',
    });
  });

  it('refused when an older kernel does, for the reason that was told', async () => {
    expect(await judge('cookie.bpf.o', { since: 'v6.1', refusedWith: /attach_cookie/ })).toMatchObject({
      outcome: 'refused',
      why: expect.stringContaining('bpf_get_attach_cookie) is unknown to v5.13'),
    });
  });

  it('failed when it is refused for another reason, or not at all, or where it should run', async () => {
    expect(await judge('cookie.bpf.o', { since: 'v6.1', refusedWith: /by value/ })).toMatchObject({
      outcome: 'failed',
    });
    expect(await judge('fexit.bpf.o', { since: 'v6.1', refusedWith: /./ })).toMatchObject({
      outcome: 'failed',
      why: 'unicorn, compiled: v5.13 took programs that its kernel refuses',
    });
    expect(await judge('cookie.bpf.o', {})).toMatchObject({ outcome: 'failed' });
  });

  it('without the programs that are left apart', async () => {
    const typed = ['on_switch', 'on_typed_switch', 'each_task', 'start_ops'];
    const programs = ['filter_socket', 'drop_frame', 'classify_tc', 'classify_old', ...typed];
    const result = await judge('plain.bpf.o', {
      apart: { programs, why: 'nothing here attaches them' },
      run: ({ load, check }) => check('loaded', [...load().programs.keys()].join(), ''),
    });
    expect(result).toEqual({ outcome: 'passed', checks: 2, why: '' });
  });

  it('failed when other programs are left apart than do not attach', async () => {
    const apart = { programs: ['nobody'], why: 'it is not there' };
    expect(await judge('fexit.bpf.o', { apart })).toMatchObject({
      outcome: 'failed',
      why: 'unicorn, compiled: fexit.bpf.o has other programs than nobody that do not attach',
    });
  });
});

describe('the page', () => {
  const page = readFileSync(url('docs/selftests.md'), 'utf8');

  it.each(CASES.map((one) => [one.name, one] as const))('%s runs from its revision on', (name, { since }) => {
    const cells = page
      .split('\n')
      .find((line) => line.startsWith(`| \`${name}\` |`))
      ?.split('|')
      .slice(2, 6)
      .map((text) => text.trim().replace(/ \(\d+\)$/, ''));
    const revisions = ['v5.13', 'v5.15', 'v6.1', 'v6.12'];
    expect(cells).toEqual(revisions.map((_, i) => (i < revisions.indexOf(since) ? 'cannot run' : 'passed')));
  });
});
