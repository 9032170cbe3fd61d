/* The charts of a report, as data. */

import { COLUMNS } from './column.ts';
import type { CostReport, MixCost, RevisionCost } from './report.ts';
import { instructionsOf } from './tables.ts';

export interface Chart {
  readonly id: string;
  readonly kind: 'bar' | 'line';
  readonly stacked: boolean;
  readonly title: string;
  readonly note: string;
  readonly xTitle: string;
  readonly yTitle: string;
  readonly labels: readonly string[];
  readonly series: readonly Series[];
}

interface Series {
  readonly name: string;
  /** null: not measured. */
  readonly values: readonly (number | null)[];
  /** Colours on a light and on a dark page. */
  readonly light: string;
  readonly dark: string;
}

/** Hues far enough apart for neighbours, as many as there are parts. */
const HUES: readonly number[] = [210, 30, 145, 340, 265, 95, 15, 190, 50, 300, 120, 235];

const colours = (index: number): Pick<Series, 'light' | 'dark'> => {
  const hue = HUES[index % HUES.length] as number;
  return { light: `hsl(${hue} 60% 45%)`, dark: `hsl(${hue} 65% 62%)` };
};

/** Of so many programs that all else would be too small to see. */
const isCrowd = ({ name }: MixCost): boolean => /x 38/.test(name);

export function chartsOf(report: CostReport): Chart[] {
  const { revisions } = report;
  return [
    ...revisions.map(partsChart),
    sideBySide(
      'over',
      revisions,
      'Instructions over the bare call',
      'instructions',
      (mix) => mix.over.instructions,
    ),
    ...('none' in report.native
      ? []
      : [
          sideBySide('time', revisions, 'Time over the bare call on the host CPU', 'ns', (mix) =>
            mix.time === null ? null : Number(mix.time.overNs.toFixed(2)),
          ),
        ]),
    scaling('arguments', revisions, 'Each argument', 'arguments', /^fentry, (\d+) arguments?$/),
    scaling('programs', revisions, 'Each program', 'fentry programs', /^fentry(?:, 2 arguments| x (\d+))$/),
  ];
}

function partsChart({ revision, mixes }: RevisionCost): Chart {
  const shown = mixes.filter((mix) => !isCrowd(mix));
  return {
    id: `parts-${revision}`,
    kind: 'bar',
    stacked: true,
    title: `${revision}: instructions of a traced call by part`,
    note: 'Each part with what it calls. 38 programs are left to the table.',
    xTitle: 'instructions',
    yTitle: '',
    labels: shown.map(({ name }) => name),
    series: COLUMNS.map((column, i) => ({
      name: column,
      values: shown.map((mix) => instructionsOf(mix, column)),
      ...colours(i),
    })).filter(({ values }) => values.some((value) => value > 0)),
  };
}

function sideBySide(
  id: string,
  revisions: readonly RevisionCost[],
  title: string,
  xTitle: string,
  value: (mix: MixCost) => number | null,
): Chart {
  const names = [
    ...new Set(
      revisions.flatMap(({ mixes }) => mixes.filter((mix) => !isCrowd(mix))).map(({ name }) => name),
    ),
  ];
  return {
    id,
    kind: 'bar',
    stacked: false,
    title,
    note: 'Revisions side by side; a gap where a revision has no such mix.',
    xTitle,
    yTitle: '',
    labels: names,
    series: revisions.map(({ revision, mixes }, i) => ({
      name: revision,
      values: names.map((name) => {
        const mix = mixes.find((candidate) => candidate.name === name);
        return mix === undefined ? null : value(mix);
      }),
      ...colours(i),
    })),
  };
}

/** Instructions over the bare call against a number that the names of mixes carry (1 where they carry none). */
function scaling(
  id: string,
  revisions: readonly RevisionCost[],
  title: string,
  xTitle: string,
  pattern: RegExp,
): Chart {
  const points = (mixes: readonly MixCost[]): Map<number, number> =>
    new Map(
      mixes.flatMap(({ name, over }) => {
        const match = pattern.exec(name);
        return match === null ? [] : [[Number(match[1] ?? 1), over.instructions] as const];
      }),
    );
  const all = revisions.map(({ mixes }) => points(mixes));
  const labels = [...new Set(all.flatMap((found) => [...found.keys()]))].toSorted((a, b) => a - b);
  return {
    id,
    kind: 'line',
    stacked: false,
    title: `${title} adds so much`,
    note: 'Instructions over the bare call.',
    xTitle,
    yTitle: 'instructions',
    labels: labels.map(String),
    series: revisions.map(({ revision }, i) => ({
      name: revision,
      values: labels.map((label) => all[i]?.get(label) ?? null),
      ...colours(i),
    })),
  };
}
