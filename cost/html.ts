/*
 * A report as one page that needs nothing else: tables, and charts drawn by the library inlined with it.
 * Readable in light and dark; without JavaScript the tables remain.
 */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { type Chart, chartsOf } from './charts.ts';
import { hostLines } from './host-lines.ts';
import type { CostReport } from './report.ts';
import { type Table, tablesOf } from './tables.ts';

export function htmlReport(report: CostReport): string {
  const charts = chartsOf(report);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tramplab: what a traced call costs</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
</head>
<body>
<h1>What a traced call costs</h1>
<ul>${hostLines(report)
    .map((line) => `<li>${escaped(line)}</li>`)
    .join('')}</ul>
${charts.map(figure).join('\n')}
${tablesOf(report).map(table).join('\n')}
<script>${inline(chartLibrary())}</script>
<script type="application/json" id="charts">${inline(JSON.stringify(charts))}</script>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

const STYLE = `
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #ffffff; --soft: #5f6670; --line: #d9dde2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --paper: #15181b; --soft: #9aa3ad; --line: #343a41; } }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
figure { margin: 2.5rem 0; }
figcaption, .note { color: var(--soft); }
.plot { position: relative; height: 26rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font: 13px/1.4 ui-monospace, monospace; }
th, td { padding: 0.2rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
`;

/** Draws every chart, and again when the colour scheme changes. */
const SCRIPT = `
const specs = JSON.parse(document.getElementById('charts').textContent);
const dark = matchMedia('(prefers-color-scheme: dark)');
let drawn = [];
function draw() {
  for (const chart of drawn) chart.destroy();
  const style = getComputedStyle(document.documentElement);
  const soft = style.getPropertyValue('--soft').trim();
  const line = style.getPropertyValue('--line').trim();
  Chart.defaults.color = soft;
  Chart.defaults.borderColor = line;
  Chart.defaults.animation = false;
  drawn = specs.map((spec) => new Chart(document.getElementById(spec.id), {
    type: spec.kind,
    data: { labels: spec.labels, datasets: spec.series.map(({ name, values, light, dark: night }) => {
      const colour = dark.matches ? night : light;
      const points = spec.kind === 'line' ? values.map((y, i) => ({ x: Number(spec.labels[i]), y })) : values;
      return { label: name, data: points, backgroundColor: colour, borderColor: colour, tension: 0 };
    }) },
    options: {
      maintainAspectRatio: false,
      indexAxis: spec.kind === 'bar' ? 'y' : 'x',
      scales: {
        x: { ...(spec.kind === 'line' ? { type: 'linear' } : {}), stacked: spec.stacked, title: { display: true, text: spec.xTitle } },
        y: { stacked: spec.stacked, title: { display: spec.yTitle !== '', text: spec.yTitle }, beginAtZero: true },
      },
      plugins: { legend: { position: 'bottom' } },
    },
  }));
  document.documentElement.dataset.charts = String(drawn.length);
}
draw();
dark.addEventListener('change', draw);
`;

/** The chart library as one script for a page. */
function chartLibrary(): string {
  const entry = createRequire(import.meta.url).resolve('chart.js');
  const source = readFileSync(join(dirname(entry), 'chart.umd.min.js'), 'utf8');
  // Its source map is not part of the page.
  return source.replace(/\n\/\/# sourceMappingURL=.*\s*$/, '\n');
}

const figure = ({ id, title, note }: Chart): string =>
  `<figure><h2>${escaped(title)}</h2><div class="plot"><canvas id="${id}" role="img" aria-label="${escaped(title)}"></canvas></div>` +
  `<figcaption>${escaped(note)}</figcaption></figure>`;

const table = ({ title, note, head, rows }: Table): string =>
  `<h2>${escaped(title)}</h2><p class="note">${escaped(note)}</p><div class="scroll"><table><thead>${cells('th', head)}</thead><tbody>` +
  `${rows.map((row) => cells('td', row)).join('')}</tbody></table></div>`;

const cells = (tag: string, row: readonly string[]): string =>
  `<tr>${row.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join('')}</tr>`;

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

/** Text inside a script element: it must not end it. */
const inline = (text: string): string => text.replaceAll('</', '<\\/');
