/* A report as tables of text cells: what the terminal, the markdown and the page all show. */

import { COLUMNS, type Column, LEGEND } from './column.ts';
import type { CountName } from './counts.ts';
import type { HarnessCost } from './harness/harness.ts';
import type { Time } from './harness/rounds.ts';
import type { CostReport, MixCost, RevisionCost } from './report.ts';

export interface Table {
  readonly title: string;
  /** One line below the title. */
  readonly note: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** Everything in a report, in reading order. */
export function tablesOf(report: CostReport): Table[] {
  return [
    costliest(report.revisions),
    ...report.revisions.flatMap((revision) => [totals(revision), byPart(revision)]),
    ...('none' in report.native ? [] : [returns(report.native.returns)]),
    ...(report.harness === null ? [] : harnessTables(report.harness)),
  ];
}

const TOTALS: readonly (readonly [CountName, string])[] = [
  ['instructions', 'instructions'],
  ['bytes', 'bytes'],
  ['loads', 'loads'],
  ['stores', 'stores'],
  ['branches', 'branches'],
  ['calls', 'calls'],
  ['codeLines', 'code lines'],
  ['dataLines', 'data lines'],
];

function totals({ revision, mixes }: RevisionCost): Table {
  const timed = mixes.some(({ time }) => time !== null);
  return {
    title: `${revision}: over the bare call`,
    note: 'What a traced call takes more than the same call with nothing attached; lines are 64 bytes.',
    head: ['mix', 'image', ...TOTALS.map(([, title]) => title), ...(timed ? ['ns', 'ns traced'] : [])],
    rows: mixes.map(({ name, imageBytes, over, time }) => [
      name,
      String(imageBytes),
      ...TOTALS.map(([count]) => String(over[count])),
      ...(timed ? (time === null ? ['', ''] : [ns(time.overNs), ns(time.traced.medianNs)]) : []),
    ]),
  };
}

const COSTLIEST = 3;

function costliest(revisions: readonly RevisionCost[]): Table {
  const share = (mix: MixCost, column: Column): string => {
    const count = instructionsOf(mix, column);
    return `${column} ${count} (${Math.round((100 * count) / mix.traced.instructions)} %)`;
  };
  return {
    title: 'Costliest parts',
    note: `The ${COSTLIEST} parts of each traced call that take most instructions, with what they call.`,
    head: ['mix', 'revision', ...Array.from({ length: COSTLIEST }, (_, i) => `${i + 1}.`)],
    rows: revisions.flatMap(({ revision, mixes }) =>
      mixes
        .filter(({ imageBytes }) => imageBytes > 0)
        .map((mix) => {
          const parts = COLUMNS.toSorted((a, b) => instructionsOf(mix, b) - instructionsOf(mix, a));
          return [mix.name, revision, ...parts.slice(0, COSTLIEST).map((column) => share(mix, column))];
        }),
    ),
  };
}

/** Instructions of a part, with those that it calls. */
export function instructionsOf({ parts }: MixCost, column: Column): number {
  const part = parts[column];
  return part === undefined ? 0 : part.own.instructions + part.called.instructions;
}

function byPart({ revision, mixes }: RevisionCost): Table {
  return {
    title: `${revision}: instructions of each part`,
    note: `With what the part calls. ${COLUMNS.map((column) => `${column}: ${LEGEND[column]}`).join('; ')}.`,
    head: ['mix', ...COLUMNS, 'sum'],
    rows: mixes.map((mix) => [
      mix.name,
      ...COLUMNS.map((column) => String(instructionsOf(mix, column) || '')),
      String(mix.traced.instructions),
    ]),
  };
}

function returns({ plain, skipping, misses }: { plain: Time; skipping: Time; misses: string }): Table {
  return {
    title: 'Returns that skip a frame',
    note: `An image that has called the original returns past its caller: one return address of the CPU's own stack is never used. ${misses}`,
    head: ['return', 'ns', 'quartiles'],
    rows: [
      ['six nested calls, each with its return', ns(plain.medianNs), spread(plain)],
      ['the same, the innermost return skipping a frame', ns(skipping.medianNs), spread(skipping)],
    ],
  };
}

function harnessTables({ emit, call, attach, command }: HarnessCost): Table[] {
  return [
    {
      title: 'Harness: emitting',
      note: 'One image with fentry, fmod_ret and fexit on three arguments, in this process.',
      head: ['revision', 'raw us', 'images/s', 'with provenance us', 'image bytes'],
      rows: emit.map(({ revision, raw, withProvenance, imageBytes }) => [
        revision,
        us(raw.medianNs),
        String(Math.round(1e9 / raw.medianNs)),
        us(withProvenance.medianNs),
        String(imageBytes),
      ]),
    },
    {
      title: 'Harness: calling',
      note: `A traced call of ${call.instructions} instructions on the emulator, and the same bytes on a bare engine.`,
      head: ['how', 'bare ns', 'machine ns', 'ratio'],
      rows: (
        [
          ['one uc_emu_start per call', call.single],
          ['a loop in guest code', call.loop],
        ] as const
      ).map(([how, { bare, machine, ratio }]) => [
        how,
        ns(bare.medianNs),
        ns(machine.medianNs),
        ratio.toFixed(2),
      ]),
    },
    {
      title: 'Harness: attaching',
      note: 'With grace periods and freeing, beside other live trampolines.',
      head: ['others', 'attach us', 'detach us', 'attaches/s', 'bytes per trampoline'],
      rows: attach.map(({ others, attach: on, detach: off, bytesPerTrampoline }) => [
        String(others),
        us(on.medianNs),
        us(off.medianNs),
        String(Math.round(1e9 / on.medianNs)),
        String(bytesPerTrampoline ?? ''),
      ]),
    },
    {
      title: 'Harness: the command',
      note: 'Whole processes, start-up included.',
      head: ['command', 'ms', 'quartiles'],
      rows: (
        [
          ['node, running nothing', command.node],
          ['tramplab --version', command.startUp],
          [`tramplab emit, ${command.requests} requests`, command.emit],
        ] as const
      ).map(([what, time]) => [
        what,
        ms(time.medianNs),
        `${ms(time.quartilesNs[0])}..${ms(time.quartilesNs[1])}`,
      ]),
    },
  ];
}

const ns = (value: number): string => value.toFixed(1);
const us = (value: number): string => (value / 1e3).toFixed(2);
const ms = (value: number): string => (value / 1e6).toFixed(0);
const spread = ({ quartilesNs: [low, high] }: Time): string => `${ns(low)}..${ns(high)}`;
