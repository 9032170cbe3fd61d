// What came of selftests, as a table on a terminal and as docs/selftests.md.

/** A cell, in words. */
function cell({ outcome, checks }) {
  if (outcome === 'refused') return 'cannot run';
  return outcome === 'passed' ? `passed (${checks})` : 'FAILED';
}

/** Why cells are not `passed`, and which programs are left apart: one line each, the same reason once. */
function reasons({ rows }) {
  const lines = [];
  for (const { one, results } of rows) {
    const byWhy = new Map();
    for (const [revision, { outcome, why }] of results) {
      if (outcome === 'passed') continue;
      byWhy.set(why, [...(byWhy.get(why) ?? []), revision]);
    }
    for (const [why, revisions] of byWhy) lines.push({ name: one.name, where: revisions.join(', '), why });
    if (one.apart !== undefined) {
      const { programs, why } = one.apart;
      lines.push({ name: one.name, where: `${programs.join(', ')} on every revision`, why });
    }
  }
  return lines;
}

export function selftestsTable(report) {
  const { rows, revisions } = report;
  const table = [
    ['selftest', ...revisions],
    ...rows.map(({ one, results }) => [
      one.name,
      ...revisions.map((revision) => cell(results.get(revision))),
    ]),
  ];
  const widths = table[0].map((_, column) => Math.max(...table.map((row) => row[column].length)));
  const lines = table.map((row) =>
    row
      .map((text, column) => text.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  );
  const notes = reasons(report).map(({ name, where, why }) => `${name}, ${where}: ${why}`);
  return [...lines, '', ...notes].join('\n');
}

export function selftestsPage(report) {
  const { rows, revisions, engines, packages, clang } = report;
  const row = (cells) => `| ${cells.join(' | ')} |`;
  return `# The kernel's selftests

<!-- Written by \`npm run selftests\`. -->

Linux tests its trampolines with programs of its own, \`tools/testing/selftests/bpf/progs/\`. \`npm run selftests\`
fetches Debian's kernel source through apt, compiles those programs as they are, and runs them in the lab
against functions of ours that have the names and signatures which they trace
(\`scripts/selftests/targets.c\`). What is done and what must come of it is what the kernel's \`prog_tests\` do
and ask (\`scripts/selftests/cases.mjs\`). Nothing of the kernel's is part of this project.

Packages: ${packages.join(', ')}. Compiler: clang ${clang}. Each passed cell ran on
${engines.join(' and ')}, compiled and interpreted; the number counts the comparisons of these runs, all of them equal.

${row(['selftest', ...revisions, 'what it asks'])}
${row(['---', ...revisions.map(() => '---'), '---'])}
${rows.map(({ one, results }) => row([`\`${one.name}\``, ...revisions.map((revision) => cell(results.get(revision))), one.shows])).join('\n')}

## What cannot run, and why

A kernel older than what a program needs refuses it, and so must the lab; that counts as \`cannot run\`, and this
is what the lab says then.

${reasons(report)
  .map(({ name, where, why }) => `- \`${name}\`, ${where}: ${why}`)
  .join('\n')}

## What differs from a booted kernel

- A test run (\`BPF_PROG_TEST_RUN\`) of a tracing program is a call of the function in our target that calls the
  traced ones with the arguments that the kernel gives them.
- \`fexit_sleep\`: the system call sleeps as tasks of the lab sleep, in \`schedule()\`, until the script wakes the
  task; the signal that kills it is a word which the system call looks at then. The programs are detached while it
  sleeps; they are freed with their object, as the library does not close one alone.
- \`test_trampoline_count\`: v5.13 and v5.15 do not count fmod_ret programs, and their own test attaches none; so
  does this one there.
- \`vmlinux.h\` is a file of a few lines (\`scripts/selftests/include/\`): these programs need no type of the kernel.
- All revisions run the programs of one source, 6.1; a kernel's own source may have more of them.
`;
}
