/* What the command costs: its start-up alone, and `tramplab emit` as a filter, start-up included. */

import { spawnSync } from 'node:child_process';
import { performance } from 'node:perf_hooks';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { Bug } from '../../lib/index.ts';
import { type Time, timeOf } from './rounds.ts';

export interface CommandCost {
  /** `tramplab --version`. */
  readonly startUp: Time;
  /** Node itself, running nothing. */
  readonly node: Time;
  readonly requests: number;
  /** So many requests through one `tramplab emit`. */
  readonly emit: Time;
}

const COMMAND = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

const address = (offset: number): string => `0x${(0xffff_ffff_a000_0000n + BigInt(offset)).toString(16)}`;

const program = (index: number): object => ({
  prog: address(0x100_0000 + 0x1000 * index),
  bpfFunc: address(0x1_0000 + 0x100 * index),
  insnsi: address(0x100_0048 + 0x1000 * index),
  sleepable: false,
  jited: true,
});

function requestLine(id: number): string {
  const names = ['tramp_enter', 'tramp_exit', 'prog_enter', 'prog_exit'];
  return JSON.stringify({
    id,
    revision: 'v5.15',
    image: address(0),
    imageSize: 4096,
    im: address(0x200_0000),
    origCall: address(0x2_0000),
    argSizes: [8, 4, 8],
    flags: 6,
    fentry: [program(1)],
    fmodRet: [program(2)],
    fexit: [program(3)],
    helpers: Object.fromEntries(names.map((name, i) => [`__bpf_${name}`, address(0x3_0000 + 0x40 * i)])),
  });
}

/** Runs this Node with arguments and takes the time, milliseconds. */
function timed(args: readonly string[], input: string, lines: number): number {
  const start = performance.now();
  const { status, stdout } = spawnSync(process.execPath, args, { input, maxBuffer: 1 << 30 });
  const took = performance.now() - start;
  const answers = stdout.toString().split('\n').length - 1;
  if (status !== 0 || answers !== lines)
    throw new Bug(`${args.join(' ')}: status ${status}, ${answers} lines`);
  return took * 1e6;
}

export function commandCost(rounds: number, requests: number): CommandCost {
  const input = `${Array.from({ length: requests }, (_, id) => requestLine(id)).join('\n')}\n`;
  const node: number[] = [];
  const startUp: number[] = [];
  const emit: number[] = [];
  for (let round = 0; round < rounds; round++) {
    node.push(timed(['-e', ''], '', 0));
    startUp.push(timed([COMMAND, '--version'], '', 1));
    emit.push(timed([COMMAND, 'emit'], input, requests));
  }
  return { node: timeOf(node), startUp: timeOf(startUp), requests, emit: timeOf(emit) };
}
