import type { CostReport } from './report.ts';

/** Where and how a report was measured, a line each. */
export function hostLines({ host, native }: CostReport): string[] {
  const { cpu, cores, system, node, emulator } = host;
  return [
    `${cpu}, ${cores} cores, ${system}, node ${node}`,
    `counts: exact, from ${emulator}, one call each`,
    'none' in native ? `no times: ${native.none}` : `times: ${native.method}`,
    ...('none' in native ? [] : [`hardware counters: ${native.counters}`]),
  ];
}
