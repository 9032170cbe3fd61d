import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'forks',
    // `npm run coverage`: the manager must be covered, as docs/seeds.md says.
    coverage: {
      provider: 'v8',
      include: ['tramp/**/*.ts'],
      exclude: ['test/**'],
      reporter: ['text', 'json'],
      reportsDirectory: 'dist/coverage',
      thresholds: { branches: 95 },
    },
  },
});
