import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import {
  type CampaignOptions,
  type CampaignReport,
  makePlan,
  type Plan,
  runCampaign,
} from '../../fuzz/index.ts';

/** The built worker: a process cannot be started on TypeScript. */
export const WORKER = new URL('../../dist/fuzz/worker.js', import.meta.url);

if (!existsSync(WORKER)) throw new Error('the fuzzer is not built: npm run build');

/** The small families, wrong in the ways asked for; see subjects.mjs. */
export function subjects(wrong: Readonly<Record<string, number>> = {}): string {
  const url = new URL('./subjects.mjs', import.meta.url);
  for (const [name, value] of Object.entries(wrong)) url.searchParams.set(name, String(value));
  return url.href;
}

/** A crew for small things. */
export const SMALL = { workers: 1, worker: WORKER } as const;

/** Runs a small campaign: 200 cases in blocks of 10, unless said otherwise. */
export function campaign(
  plan: Partial<Plan> = {},
  options: Partial<CampaignOptions> & { readonly wrong?: Readonly<Record<string, number>> } = {},
): Promise<CampaignReport> {
  const { wrong, ...others } = options;
  return runCampaign({
    plan: makePlan({ seed: 1, cases: 200, blockCases: 10, ...plan }),
    ...SMALL,
    subjects: subjects(wrong),
    ...others,
  });
}

/** All that must be the same however a campaign was run. */
export function lasting(report: CampaignReport): unknown {
  const { cases, calls, broken, rules, digest, coverage, complete } = report;
  const findings = report.findings.map(({ file, ...finding }) => finding);
  return { cases, calls, broken, rules, digest, coverage, complete, findings };
}

const folders: string[] = [];

afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A folder that is gone after the tests. */
export function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'tramplab-fuzz-'));
  folders.push(path);
  return path;
}
