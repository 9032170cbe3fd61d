import process from 'node:process';
import { type Command, Option } from 'commander';
import {
  type GivenImage,
  ImageChecker,
  type ImageReport,
  JUDGED_REVISIONS,
  parseImageCase,
  plainCase,
  type Situation,
  sameImage,
} from '../check/index.ts';
import { type RevisionName, revisions } from '../jit/index.ts';
import { readBytes, readText } from '../lab/index.ts';
import { fromHex, hex64, InputError } from '../lib/index.ts';
import { Exit } from './exit.ts';
import { Fields, isObject, stringify } from './fields.ts';
import { findingText } from './finding-text.ts';
import { readEmitRequest } from './request.ts';

interface CheckOptions {
  readonly request: string;
  readonly revision?: RevisionName;
  readonly call?: string;
  readonly json?: boolean;
}

/** `tramplab check`: bytes that somebody else made, against the rules. */
export function addCheck(program: Command): Command {
  return program
    .command('check')
    .summary('judge an image that someone else made')
    .description(
      'Runs the bytes of a trampoline image, at the addresses of its request, with many arguments and many manners\n' +
        'of its programs, and prints each rule that it breaks (docs/rules.md) with the instruction at fault and the\n' +
        'plainest call that shows it. Exit 1 when there is one.\n\n' +
        'IMAGE holds raw bytes, or hex digits. The request is a JSON object as `tramplab emit` takes it; it may also\n' +
        'hold ret (the length), ipAfterCall and ipEpilogue (both) as the emitter of IMAGE reported them, without which an\n' +
        'image can only be retired where it has them at the same places as ours, and args, a list of\n' +
        '{"sizeBytes","signed"}.',
    )
    .argument('<IMAGE>', 'file with the image')
    .requiredOption('--request <FILE>', 'file with the request, JSON')
    .addOption(
      new Option('--revision <REVISION>', 'kernel revision in place of the request’s').choices(
        JUDGED_REVISIONS,
      ),
    )
    .option('--call <FILE>', 'make only this call: the `case` of a finding, JSON')
    .option('--json', 'one JSON document on standard output')
    .addHelpText(
      'after',
      `
Examples:
  tramplab check image.bin --request request.json
  tramplab check image.hex --request request.json --json | jq .findings[0].case > call.json
  tramplab check image.hex --request request.json --call call.json`,
    )
    .action(async (file: string, options: CheckOptions) => {
      process.exitCode = await check(file, options);
    });
}

async function check(file: string, options: CheckOptions): Promise<number> {
  const { revision, image } = readRequest(options, readImage(file));
  const situations = options.call === undefined ? undefined : [readCall(options.call, revision, image)];
  const checker = await ImageChecker.open(revision, [image.request]);
  let report: ImageReport;
  try {
    report = await checker.check(image, situations === undefined ? {} : { situations });
  } finally {
    checker.close();
  }
  console.log(
    options.json === true ? stringify(documentOf(revision, image, report)) : text(revision, image, report),
  );
  return report.findings.length > 0 ? Exit.FINDING : Exit.FINE;
}

/** Raw bytes; or, where there is nothing but text, hex digits with spaces and line ends anywhere. */
function readImage(file: string): Uint8Array {
  const raw = readBytes(file);
  const text = Buffer.from(raw).toString('latin1');
  // No image is text: ENDBR, or `mov rbp, rsp` behind the push, has bytes that ASCII has not.
  const bytes = /^[\t-\r -~]*$/.test(text) ? readDigits(file, text) : raw;
  if (bytes.length === 0) throw new InputError(file, undefined, 'is empty; give the bytes of an image');
  return bytes;
}

/** @throws InputError saying where what is no hex digit stands, or that one is missing */
function readDigits(file: string, text: string): Uint8Array {
  const lines = text.split('\n');
  for (const [i, line] of lines.entries()) {
    const at = line.search(/[^0-9a-fA-F\s]/);
    if (at < 0) continue;
    const why = `'${line[at]}' is no hex digit; correct it, or give raw bytes`;
    throw new InputError(file, `line ${i + 1}, column ${at + 1}`, why);
  }
  const digits = lines.map((line) => line.replace(/\s+/g, ''));
  const bytes = fromHex(digits.join(''));
  if (bytes !== undefined) return bytes;
  const odd = digits.findIndex(({ length }) => length % 2 !== 0);
  const why =
    'has an odd number of hex digits, and so has the file: one is missing or too many; give two a byte';
  throw new InputError(file, `line ${odd + 1}`, why);
}

function readRequest(
  { request: file, revision }: CheckOptions,
  bytes: Uint8Array,
): { readonly revision: RevisionName; readonly image: GivenImage } {
  const json = readJson(file);
  if (!isObject(json)) throw new InputError(file, undefined, 'must hold one JSON object');
  const fields = new Fields(revision === undefined ? json : { ...json, revision });
  const asked = readEmitRequest(fields);
  const site = (name: string): number | null | undefined =>
    (fields.raw(name) ?? null) === null ? (fields.raw(name) as null | undefined) : fields.integer(name);
  // v6.12 counts bytes beyond the image.
  const spare = revisions[asked.revision].delivery.spareBytes;
  const length = fields.raw('ret') === undefined ? bytes.length : fields.integer('ret') - spare;
  if (length > bytes.length) {
    throw new InputError(
      'ret',
      undefined,
      `${length} bytes were reported, and the image has ${bytes.length}: give it whole`,
    );
  }
  const args = fields.objects('args').map((arg) => ({
    sizeBytes: arg.integer('sizeBytes'),
    signed: arg.boolean('signed', false),
  }));
  const sizes = asked.request.argSizes;
  if (
    args.length > 0 &&
    args.some(({ sizeBytes }, i) => sizeBytes !== sizes[i] || args.length !== sizes.length)
  ) {
    throw new InputError(
      'args',
      undefined,
      'other sizes than in argSizes; give the same ones, or leave one out',
    );
  }
  return {
    revision: asked.revision,
    image: {
      request: asked.request,
      bytes: bytes.subarray(0, length),
      ipAfterCall: site('ipAfterCall'),
      ipEpilogue: site('ipEpilogue'),
      ...(args.length > 0 ? { args } : {}),
    },
  };
}

function readCall(file: string, revision: RevisionName, image: GivenImage): Situation {
  const one = parseImageCase(readJson(file));
  if (!sameImage(one, plainCase(revision, image))) {
    throw new InputError(
      file,
      undefined,
      'is a call of another request; give the case of one of its findings',
    );
  }
  return { variant: 'plain', one };
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readText(file).replace(/^\ufeff/, ''));
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(file, undefined, 'not JSON; give one object');
  }
}

function documentOf(revision: RevisionName, { request, bytes }: GivenImage, report: ImageReport): unknown {
  const { situations, findings, exact, unjudged } = report;
  return {
    revision,
    image: request.image,
    length: bytes.length,
    calls: situations.length,
    findings,
    exact,
    unjudged,
  };
}

function text(revision: RevisionName, { request, bytes }: GivenImage, report: ImageReport): string {
  const { situations, findings, unjudged } = report;
  const what = `${bytes.length} bytes at ${hex64(request.image)}, ${revision}, flags ${hex64(BigInt(request.flags))}`;
  const broken = findings.length === 1 ? '1 rule is broken' : `${findings.length} rules are broken`;
  const verdict = findings.length === 0 ? 'no rule is broken' : broken;
  return [
    `${what}: ${verdict} in ${situations.length} calls`,
    ...unjudged.map((why) => `not judged: ${why}`),
    ...findings.map(
      (finding) => `\n${findingText(finding, [['again', `--call: ${stringify(finding.case)}`]])}`,
    ),
  ].join('\n');
}
