import { hostLines } from './host-lines.ts';
import type { CostReport } from './report.ts';
import { tablesOf } from './tables.ts';

/** A report as markdown: a list of where it was measured, and a section per table. */
export function markdownReport(report: CostReport): string {
  const host = hostLines(report).map((line) => `- ${line}`);
  const sections = tablesOf(report).map(({ title, note, head, rows }) =>
    [
      `## ${title}`,
      '',
      note,
      '',
      row(head),
      row(head.map((_, i) => (i === 0 ? '---' : '---:'))),
      ...rows.map(row),
    ].join('\n'),
  );
  return `${[host.join('\n'), ...sections].join('\n\n')}\n`;
}

const row = (cells: readonly string[]): string =>
  `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
