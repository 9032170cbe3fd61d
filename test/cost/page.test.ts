/* The page in a real browser: every chart is drawn, nothing is fetched, nothing complains; light and dark. */

import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Browser, chromium } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { htmlReport, measureReport } from '../../cost/index.ts';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(
  existsSync,
);

const report = await measureReport({ revisions: ['v5.13', 'v5.15'], times: false, harness: false });

test('the page names every table, and carries its charts and their library with it', () => {
  const page = htmlReport(report);
  expect(page).toContain('<h2>v5.15: over the bare call</h2>');
  expect(page.match(/<canvas/g)).toHaveLength(5);
  expect(page).not.toMatch(/<(?:script|link|img)[^>]*(?:src|href)="(?!data:)/);
});

describe.skipIf(CHROMIUM === undefined)('in Chromium', () => {
  let browser: Browser;
  let folder: string;

  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath: CHROMIUM ?? '',
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-background-networking',
        '--disable-component-update',
      ],
    });
    folder = mkdtempSync(join(tmpdir(), 'costs-'));
    writeFileSync(join(folder, 'costs.html'), htmlReport(report));
  }, 60_000);
  afterAll(async () => {
    await browser.close();
    rmSync(folder, { recursive: true });
  });

  test.each(['light', 'dark'] as const)(
    '%s',
    async (colorScheme) => {
      const page = await browser.newPage({ colorScheme, viewport: { width: 1200, height: 900 } });
      const complaints: string[] = [];
      const requests: string[] = [];
      page.on('console', (message) => complaints.push(message.text()));
      page.on('pageerror', (error) => complaints.push(String(error)));
      page.on('request', (request) => requests.push(request.url()));
      const url = pathToFileURL(join(folder, 'costs.html')).href;
      await page.goto(url);
      await page.waitForFunction("document.documentElement.dataset.charts === '5'");

      // A chart that was drawn has ink on its canvas, in more than one colour.
      const inks = await page.$$eval('canvas', (canvases) =>
        (canvases as unknown as CanvasLike[]).map((canvas) => {
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          const colours = new Set<number>();
          for (let i = 0; i < data.length; i += 4) {
            if (data[i + 3] === 255)
              colours.add(((data[i] ?? 0) << 16) | ((data[i + 1] ?? 0) << 8) | (data[i + 2] ?? 0));
          }
          return colours.size;
        }),
      );
      expect(inks).toHaveLength(5);
      for (const colours of inks) expect(colours).toBeGreaterThan(2);

      // A screenshot that shows something, on the paper of its scheme.
      const shot = await page.screenshot();
      expect(shot.length).toBeGreaterThan(20_000);
      const paper = await page.evaluate('getComputedStyle(document.body).backgroundColor');
      expect(paper).toBe(colorScheme === 'light' ? 'rgb(255, 255, 255)' : 'rgb(21, 24, 27)');
      expect({ complaints, requests }).toEqual({ complaints: [], requests: [url] });
      await page.close();
    },
    60_000,
  );
});

/** What of a canvas is used here; the project is not built against a browser's types. */
interface CanvasLike {
  readonly width: number;
  readonly height: number;
  getContext(kind: '2d'): {
    getImageData(x: number, y: number, width: number, height: number): { data: Uint8ClampedArray };
  };
}
