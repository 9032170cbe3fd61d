/*
 * A history in words that are the same on every engine: what ran, in order, what calls returned, what was
 * counted. Addresses by what they belong to.
 */

import { Note } from './log.ts';
import type { HistoryRecord } from './record.ts';

const NOTES: Readonly<Record<Note, string>> = {
  [Note.body]: 'begins',
  [Note.end]: 'ends',
  [Note.run]: 'is run',
  [Note.done]: 'is done',
  [Note.patch]: 'begins, patched',
  [Note.patchEnd]: 'ends, patched',
};

export function observe(record: HistoryRecord): readonly string[] {
  const { calls, counts, entries, functions, programs, splats } = record;
  const tasks = new Map(calls.map(({ task, taskId }) => [taskId, task]));
  const addresses = new Map(
    functions.flatMap(({ name, versions }) => versions.map(({ ip }) => [ip, name] as const)),
  );
  return [
    ...entries.map(({ note, subject, task, cpu, rcu, trace, migration, ip, cookie }) => {
      const named = note === Note.run || note === Note.done ? programs[subject] : functions[subject];
      const state = note === Note.run ? `, in sections ${rcu} ${trace} ${migration}` : '';
      const asks = note === Note.run && ip !== 0 ? `, for ${addresses.get(ip) ?? 'nobody'}` : '';
      const told = cookie === 0 ? '' : `, with cookie ${cookie}`;
      return `CPU ${cpu} ${tasks.get(task) ?? '?'}: ${named?.name ?? '?'} ${NOTES[note]}${state}${asks}${told}`;
    }),
    ...calls.map(
      ({ task, fn, args, from, to, result }) =>
        `${task}: ${functions[fn]?.name}(${args.join(', ')}) is 0x${result.toString(16)}, from ${from} to ${to}`,
    ),
    ...counts.map(
      ({ program, misses, runs, active }) =>
        `${program.name}: ${misses} misses, ${runs} runs, active ${active.join(' ')}`,
    ),
    `${splats} splats`,
  ];
}
