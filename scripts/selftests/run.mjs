// Runs selftests in labs: every revision, engine and way to run a program.

/**
 * @param library what makes labs, and tasks in them
 * @param modes what each is run with: engine, and whether programs are compiled
 * @returns by revision, what came of it: `passed`, `refused` (rightly, and why), or `failed` (the first difference),
 *   with the number of comparisons
 */
export async function runCase(library, one, { object, targets, revisions, modes }) {
  const results = new Map();
  for (const revision of revisions) {
    const expected = revisions.indexOf(revision) >= revisions.indexOf(one.since);
    let result = { outcome: expected ? 'passed' : 'refused', checks: 0, why: '' };
    for (const mode of modes) {
      const found = await runIn(library, one, { object, targets, revisions, revision, mode, expected });
      result = { ...found, checks: result.checks + found.checks };
      if (found.outcome === 'failed') {
        result.why = `${mode.engine}, ${mode.jited ? 'compiled' : 'interpreted'}: ${found.why}`;
        break;
      }
    }
    results.set(revision, result);
  }
  return results;
}

async function runIn(
  { createLab, Scheduler },
  one,
  { object, targets, revisions, revision, mode, expected },
) {
  const lab = await createLab({ revision, engine: mode.engine, cpus: 2 });
  const differences = [];
  let checks = 0;
  try {
    const target = lab.load(targets);
    one.run({
      target,
      lab,
      load: (without = []) => {
        const loaded = lab.loadBpf(object, {
          jited: mode.jited,
          without: [...without, ...(one.apart?.programs ?? [])],
        });
        if (one.apart !== undefined) checkApart(loaded, one);
        return loaded;
      },
      Scheduler,
      since: (other) => revisions.indexOf(revision) >= revisions.indexOf(other),
      check: (what, found, wanted) => {
        checks++;
        if (found !== wanted) differences.push(`${what} is ${found}, not ${wanted}`);
      },
    });
    if (!expected) differences.push(`${revision} took programs that its kernel refuses`);
  } catch (error) {
    const text = String(error?.message).replaceAll(object, one.name);
    if (!expected && error.name !== 'Bug' && one.refusedWith.test(text)) {
      return { outcome: 'refused', checks: 1, why: text };
    }
    differences.push(text);
  } finally {
    lab.close();
  }
  const outcome = differences.length === 0 ? 'passed' : 'failed';
  return { outcome, checks, why: differences[0] ?? '' };
}

/** What is left apart is there, and attaches to nothing: so that a new version of the programs is noticed. */
function checkApart({ object }, { name, apart }) {
  const plain = object.programs.filter(({ kind }) => kind === 'plain').map((program) => program.name);
  if (plain.join() !== apart.programs.join()) {
    throw new TypeError(`${name} has other programs than ${apart.programs.join(', ')} that do not attach`);
  }
}
