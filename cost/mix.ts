import type { RevisionName } from '../jit/index.ts';

/** A traced function, what is attached to it, and in what state it is called. */
export interface Mix {
  readonly name: string;
  /** Arguments of the traced function, 8 bytes each. */
  readonly nrArgs: number;
  /** Programs of each kind; all do nothing and return 0. */
  readonly fentry: number;
  readonly fmodRet: number;
  readonly fexit: number;
  readonly sleepable: boolean;
  /** Programs ask for the traced function's address. */
  readonly getFuncIp: boolean;
  /** Run-time statistics are on. */
  readonly statistics: boolean;
  /** Every program runs on this CPU already, so that it is skipped. */
  readonly recursion: boolean;
  /** The image is retired while the original runs. */
  readonly retired: boolean;
}

const PLAIN = {
  nrArgs: 2,
  fentry: 0,
  fmodRet: 0,
  fexit: 0,
  sleepable: false,
  getFuncIp: false,
  statistics: false,
  recursion: false,
  retired: false,
} as const satisfies Omit<Mix, 'name'>;

const mix = (name: string, differs: Partial<Mix>): Mix => ({ ...PLAIN, name, ...differs });

/** The most programs that fentry and fexit may have together. */
const MOST = 38;

const ALL_KINDS = { fentry: 1, fmodRet: 1, fexit: 1 } as const;

const MIXES: readonly Mix[] = [
  mix('no program', {}),
  ...[1, 2, 3, 4, 5, 6].map((nrArgs) =>
    mix(nrArgs === 1 ? 'fentry, 1 argument' : `fentry, ${nrArgs} arguments`, { nrArgs, fentry: 1 }),
  ),
  mix('fentry x 3', { fentry: 3 }),
  mix(`fentry x ${MOST}`, { fentry: MOST }),
  mix('fexit', { fexit: 1 }),
  mix('fexit, 6 arguments', { nrArgs: 6, fexit: 1 }),
  mix('fmod_ret', { fmodRet: 1 }),
  mix('fentry + fmod_ret + fexit', ALL_KINDS),
  mix('all three, sleepable', { ...ALL_KINDS, sleepable: true }),
  mix('all three, function address', { ...ALL_KINDS, getFuncIp: true }),
  mix('all three, statistics on', { ...ALL_KINDS, statistics: true }),
  mix('all three, recursion: skipped', { ...ALL_KINDS, recursion: true }),
  mix('all three, image retired', { ...ALL_KINDS, retired: true }),
];

/** The mixes that a revision has: v5.13 keeps no function address. */
export function mixesOf(revision: RevisionName): readonly Mix[] {
  return MIXES.filter(({ getFuncIp }) => !getFuncIp || revision !== 'v5.13');
}
