import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { type BpfObject, type BpfProgram, relocateCore, sectionMeaning } from '../../bpf/index.ts';
import { encodeInsns } from '../../jit/index.ts';
import { findSection, parseElf } from '../../obj/index.ts';
import { BPF_FIXTURES, BPF_OBJECTS, bpfBytes, bpfFixture, targetBtf } from './object-support.ts';

/*
 * A second opinion: libbpf itself reads every fixture, and what it would hand to the kernel is compared
 * with ours, slot by slot: subprograms in place, CO-RE applied against the shop's types, maps and
 * variables referred to, functions and lines. Skipped where libbpf's headers and gcc are not there.
 */

const folder = mkdtempSync(join(tmpdir(), 'tramplab-libbpf-'));
afterAll(() => rmSync(folder, { recursive: true }));

const VIEW = join(folder, 'view');
const SOURCE = fileURLToPath(new URL('libbpf-view.c', import.meta.url));
const built = spawnSync('gcc', ['-O1', '-w', SOURCE, '-o', VIEW, '-lbpf', '-ldl'], { encoding: 'utf8' });
const isHere = built.status === 0;

const BTF_FILE = join(folder, 'btf');
const SYMBOLS_FILE = join(folder, 'symbols');
const SYMBOLS: Readonly<Record<string, bigint>> = {
  orders_sold: 0xffff_ffff_8100_0010n,
  open_door: 0xffff_ffff_8100_0020n,
  ring_bell: 0xffff_ffff_8100_0030n,
  outer_step: 0xffff_ffff_8100_0040n,
};
const TARGET = targetBtf();
writeFileSync(BTF_FILE, findSection(parseElf(bpfBytes('targets.o'), 'targets.o'), '.BTF')?.data ?? '');
writeFileSync(
  SYMBOLS_FILE,
  Object.entries(SYMBOLS)
    .map(([name, address]) => `${address.toString(16)} T ${name}\n`)
    .join(''),
);

function view(...args: readonly string[]): string[] {
  const { status, stdout, stderr } = spawnSync(VIEW, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`libbpf refuses ${args.join(' ')}: ${stderr}`);
  return stdout.trimEnd().split('\n');
}

/** The kernel keeps 15 characters of a name. */
const short = (name: string): string => name.slice(0, 15);
const lower = (name = 'CGROUP_INET_INGRESS'): string => name.toLowerCase();

/** Our view of an object, in the words of libbpf-view.c. */
function ourView(object: BpfObject): string[] {
  const programs = object.programs.map(
    ({ name, section, programType, attachType, autoload }) =>
      `program ${name} ${section} ${lower(programType)} ${lower(attachType)} ${autoload ? 1 : 0}`,
  );
  const maps = object.maps.map(
    ({ name, type, keyBytes, valueBytes, maxEntries }) =>
      `map ${name} ${lower(type)} ${keyBytes} ${valueBytes} ${maxEntries}`,
  );
  const globals = object.globals.map(({ mapName, sizeBytes }) => `map ${mapName} array 4 ${sizeBytes} 1`);
  const loaded = object.programs
    .filter(({ section }) => !/^(tp_btf|iter|struct_ops|freplace)/.test(section))
    .flatMap((program) => [
      `load ${short(program.name)}${insnsText(object, program)}`,
      `func${program.funcInfo.map(({ insn, type }) => ` ${insn}:${type}`).join('')}`,
      `line${program.lineInfo.map(({ insn, line, column }) => ` ${insn}:${line}:${column}`).join('')}`,
    ]);
  return [...programs, ...maps, ...globals, ...loaded];
}

function insnsText(object: BpfObject, program: BpfProgram): string {
  const insns = [...relocateCore(object, program, [TARGET]).insns];
  const references = new Map(program.references.map((reference) => [reference.insn, reference]));
  let text = '';
  for (let at = 0; at < insns.length; at++) {
    const slot = insns[at];
    const next = insns[at + 1];
    const reference = references.get(at);
    if (slot === undefined) break;
    if (next !== undefined && (reference?.kind === 'map' || reference?.kind === 'global')) {
      const name =
        reference.kind === 'map'
          ? object.maps[reference.map]?.name
          : object.globals[reference.global]?.mapName;
      text += ` ${slot.dst | (slot.src << 4)}:${slot.off}:${short(name ?? '')}+${next.imm}`;
      at++;
      continue;
    }
    if (next !== undefined && reference?.kind === 'ksym') {
      const address = SYMBOLS[object.externs[reference.extern]?.name ?? ''] ?? 0n;
      insns[at] = { ...slot, imm: Number(BigInt.asIntN(32, address)) };
      insns[at + 1] = { ...next, imm: Number(BigInt.asIntN(32, address >> 32n)) };
    }
    text += ` ${Buffer.from(encodeInsns(insns.slice(at, at + 1))).toString('hex')}`;
  }
  return text;
}

/** Names that libbpf 1.1 knows, and some that it does not. */
const NAMES: readonly string[] = [
  ...[
    'fentry/f',
    'fentry',
    'fentry.s/f',
    'fexit/f',
    'fexit.s/f',
    'fmod_ret/f',
    'fmod_ret.s/f',
    'lsm/f',
    'lsm.s/f',
  ],
  ...[
    'freplace/f',
    'lsm_cgroup/f',
    'iter/task',
    'iter.s/task',
    'tp_btf/x',
    'raw_tp/x',
    'raw_tracepoint/x',
    'raw_tp',
  ],
  ...['raw_tp.w/x', 'raw_tracepoint.w/x', 'tp/a/b', 'tracepoint/a/b', 'kprobe/f', 'kretprobe/f', 'uprobe/f'],
  ...['uprobe.s/f', 'uretprobe/f', 'uretprobe.s/f', 'kprobe.multi/f', 'kretprobe.multi/f', 'ksyscall/f'],
  ...[
    'kretsyscall/f',
    'usdt/f',
    'socket',
    'xdp',
    'xdp.frags',
    'xdp/devmap',
    'xdp/cpumap',
    'xdp.frags/devmap',
  ],
  ...[
    'xdp.frags/cpumap',
    'tc',
    'classifier',
    'action',
    'perf_event',
    'syscall',
    'struct_ops/x',
    'struct_ops',
  ],
  ...['lwt_in', 'lwt_out', 'lwt_xmit', 'lwt_seg6local', 'sockops', 'sk_skb', 'sk_skb/stream_parser'],
  ...[
    'sk_skb/stream_verdict',
    'sk_msg',
    'sk_lookup',
    'sk_reuseport',
    'sk_reuseport/migrate',
    'flow_dissector',
  ],
  ...[
    'lirc_mode2',
    'cgroup/skb',
    'cgroup_skb/ingress',
    'cgroup_skb/egress',
    'cgroup/sock',
    'cgroup/sock_create',
  ],
  ...['cgroup/sock_release', 'cgroup/post_bind4', 'cgroup/post_bind6', 'cgroup/bind4', 'cgroup/bind6'],
  ...['cgroup/connect4', 'cgroup/connect6', 'cgroup/sendmsg4', 'cgroup/sendmsg6', 'cgroup/recvmsg4'],
  ...['cgroup/recvmsg6', 'cgroup/getpeername4', 'cgroup/getpeername6', 'cgroup/getsockname4'],
  ...['cgroup/getsockname6', 'cgroup/sysctl', 'cgroup/getsockopt', 'cgroup/setsockopt', 'cgroup/dev'],
  ...[
    'xdp/f',
    'tc/f',
    'socket/f',
    'fentryx/f',
    'fentry.x/f',
    'coffee',
    'perf_event/x',
    'sk_msg/x',
    'cgroup/skb/x',
  ],
];

describe.skipIf(!isHere)('libbpf', () => {
  it('knows the same section names', () => {
    const ours = NAMES.map((name) => {
      const meaning = sectionMeaning(name);
      return meaning === undefined
        ? `${name} unknown`
        : `${name} ${lower(meaning.programType)} ${lower(meaning.attachType)}`;
    });
    expect(ours).toEqual(view('names', ...NAMES));
  });

  it.each(BPF_OBJECTS)('hands the same to the kernel: %s', (name) => {
    expect(ourView(bpfFixture(name))).toEqual(view('object', BPF_FIXTURES + name, BTF_FILE, SYMBOLS_FILE));
  });
});
