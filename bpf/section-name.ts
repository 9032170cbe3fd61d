import type { BpfProgramKind } from './model.ts';

/*
 * The names of program sections: what kind of program a function becomes, and what it attaches to.
 * libbpf: section_defs, libbpf.c (its 1.x rules: a name must be whole, nothing may follow it but what
 * the table allows).
 */

/** What a section's name says. */
export interface SectionMeaning {
  readonly kind: BpfProgramKind;
  readonly target: string | undefined;
  readonly attachTo: string | undefined;
  readonly targetModule: string | undefined;
  readonly sleepable: boolean;
  readonly autoload: boolean;
  readonly programType: string;
  readonly attachType: string | undefined;
}

interface Row {
  readonly programType: string;
  readonly attachType: string | undefined;
  readonly kind: BpfProgramKind;
  readonly sleepable: boolean;
  /** `NAME` alone or `NAME/target`; otherwise only `NAME`. */
  readonly takesTarget: boolean;
}

const row = (
  programType: string,
  attachType: string | undefined,
  options: { readonly kind?: BpfProgramKind; readonly sleepable?: boolean; readonly target?: boolean } = {},
): Row => ({
  programType,
  attachType,
  kind: options.kind ?? 'plain',
  sleepable: options.sleepable ?? false,
  takesTarget: options.target ?? false,
});

const TARGET = { target: true } as const;
const SLEEPS = { target: true, sleepable: true } as const;

/** What trampolines carry. */
const TRAMPOLINE_ROWS: readonly (readonly [string, Row])[] = [
  ['fentry', row('TRACING', 'TRACE_FENTRY', { kind: 'fentry', ...TARGET })],
  ['fentry.s', row('TRACING', 'TRACE_FENTRY', { kind: 'fentry', ...SLEEPS })],
  ['fexit', row('TRACING', 'TRACE_FEXIT', { kind: 'fexit', ...TARGET })],
  ['fexit.s', row('TRACING', 'TRACE_FEXIT', { kind: 'fexit', ...SLEEPS })],
  ['fmod_ret', row('TRACING', 'MODIFY_RETURN', { kind: 'fmod_ret', ...TARGET })],
  ['fmod_ret.s', row('TRACING', 'MODIFY_RETURN', { kind: 'fmod_ret', ...SLEEPS })],
  ['lsm', row('LSM', 'LSM_MAC', { kind: 'lsm', ...TARGET })],
  ['lsm.s', row('LSM', 'LSM_MAC', { kind: 'lsm', ...SLEEPS })],
  ['freplace', row('EXT', undefined, { kind: 'freplace', ...TARGET })],
];

/** Programs that something else runs: here they can be called and traced, but attach to nothing. */
const PLAIN_ROWS: readonly (readonly [string, Row])[] = [
  ['socket', row('SOCKET_FILTER', undefined)],
  ['xdp', row('XDP', 'XDP')],
  ['xdp.frags', row('XDP', 'XDP')],
  ['xdp/devmap', row('XDP', 'XDP_DEVMAP')],
  ['xdp.frags/devmap', row('XDP', 'XDP_DEVMAP')],
  ['xdp/cpumap', row('XDP', 'XDP_CPUMAP')],
  ['xdp.frags/cpumap', row('XDP', 'XDP_CPUMAP')],
  ['tc', row('SCHED_CLS', undefined)],
  ['classifier', row('SCHED_CLS', undefined)],
  ['action', row('SCHED_ACT', undefined)],
  ['tc/ingress', row('SCHED_CLS', 'TCX_INGRESS')],
  ['tc/egress', row('SCHED_CLS', 'TCX_EGRESS')],
  ['tcx/ingress', row('SCHED_CLS', 'TCX_INGRESS')],
  ['tcx/egress', row('SCHED_CLS', 'TCX_EGRESS')],
  ['netkit/primary', row('SCHED_CLS', 'NETKIT_PRIMARY')],
  ['netkit/peer', row('SCHED_CLS', 'NETKIT_PEER')],
  ['tp_btf', row('TRACING', 'TRACE_RAW_TP', TARGET)],
  ['iter', row('TRACING', 'TRACE_ITER', TARGET)],
  ['iter.s', row('TRACING', 'TRACE_ITER', SLEEPS)],
  ['lsm_cgroup', row('LSM', 'LSM_CGROUP', TARGET)],
  ['raw_tp', row('RAW_TRACEPOINT', undefined, TARGET)],
  ['raw_tracepoint', row('RAW_TRACEPOINT', undefined, TARGET)],
  ['raw_tp.w', row('RAW_TRACEPOINT_WRITABLE', undefined, TARGET)],
  ['raw_tracepoint.w', row('RAW_TRACEPOINT_WRITABLE', undefined, TARGET)],
  ['tp', row('TRACEPOINT', undefined, TARGET)],
  ['tracepoint', row('TRACEPOINT', undefined, TARGET)],
  ['kprobe', row('KPROBE', undefined, TARGET)],
  ['kretprobe', row('KPROBE', undefined, TARGET)],
  ['uprobe', row('KPROBE', undefined, TARGET)],
  ['uprobe.s', row('KPROBE', undefined, SLEEPS)],
  ['uretprobe', row('KPROBE', undefined, TARGET)],
  ['uretprobe.s', row('KPROBE', undefined, SLEEPS)],
  ['kprobe.multi', row('KPROBE', 'TRACE_KPROBE_MULTI', TARGET)],
  ['kretprobe.multi', row('KPROBE', 'TRACE_KPROBE_MULTI', TARGET)],
  ['kprobe.session', row('KPROBE', 'TRACE_KPROBE_SESSION', TARGET)],
  ['uprobe.multi', row('KPROBE', 'TRACE_UPROBE_MULTI', TARGET)],
  ['uprobe.multi.s', row('KPROBE', 'TRACE_UPROBE_MULTI', SLEEPS)],
  ['uretprobe.multi', row('KPROBE', 'TRACE_UPROBE_MULTI', TARGET)],
  ['uretprobe.multi.s', row('KPROBE', 'TRACE_UPROBE_MULTI', SLEEPS)],
  ['ksyscall', row('KPROBE', undefined, TARGET)],
  ['kretsyscall', row('KPROBE', undefined, TARGET)],
  ['usdt', row('KPROBE', undefined, TARGET)],
  ['usdt.s', row('KPROBE', undefined, SLEEPS)],
  ['perf_event', row('PERF_EVENT', undefined)],
  ['syscall', row('SYSCALL', undefined, { sleepable: true })],
  ['struct_ops', row('STRUCT_OPS', undefined, TARGET)],
  ['struct_ops.s', row('STRUCT_OPS', undefined, SLEEPS)],
  ['netfilter', row('NETFILTER', 'NETFILTER')],
  ['lwt_in', row('LWT_IN', undefined)],
  ['lwt_out', row('LWT_OUT', undefined)],
  ['lwt_xmit', row('LWT_XMIT', undefined)],
  ['lwt_seg6local', row('LWT_SEG6LOCAL', undefined)],
  ['sockops', row('SOCK_OPS', 'CGROUP_SOCK_OPS')],
  ['sk_skb', row('SK_SKB', undefined)],
  ['sk_skb/stream_parser', row('SK_SKB', 'SK_SKB_STREAM_PARSER')],
  ['sk_skb/stream_verdict', row('SK_SKB', 'SK_SKB_STREAM_VERDICT')],
  ['sk_skb/verdict', row('SK_SKB', 'SK_SKB_VERDICT')],
  ['sk_msg', row('SK_MSG', 'SK_MSG_VERDICT')],
  ['sk_lookup', row('SK_LOOKUP', 'SK_LOOKUP')],
  ['sk_reuseport', row('SK_REUSEPORT', 'SK_REUSEPORT_SELECT')],
  ['sk_reuseport/migrate', row('SK_REUSEPORT', 'SK_REUSEPORT_SELECT_OR_MIGRATE')],
  ['flow_dissector', row('FLOW_DISSECTOR', 'FLOW_DISSECTOR')],
  ['lirc_mode2', row('LIRC_MODE2', 'LIRC_MODE2')],
  ['cgroup/skb', row('CGROUP_SKB', undefined)],
  ['cgroup_skb/ingress', row('CGROUP_SKB', 'CGROUP_INET_INGRESS')],
  ['cgroup_skb/egress', row('CGROUP_SKB', 'CGROUP_INET_EGRESS')],
  ['cgroup/sock', row('CGROUP_SOCK', 'CGROUP_INET_SOCK_CREATE')],
  ['cgroup/sock_create', row('CGROUP_SOCK', 'CGROUP_INET_SOCK_CREATE')],
  ['cgroup/sock_release', row('CGROUP_SOCK', 'CGROUP_INET_SOCK_RELEASE')],
  ['cgroup/post_bind4', row('CGROUP_SOCK', 'CGROUP_INET4_POST_BIND')],
  ['cgroup/post_bind6', row('CGROUP_SOCK', 'CGROUP_INET6_POST_BIND')],
  ['cgroup/sysctl', row('CGROUP_SYSCTL', 'CGROUP_SYSCTL')],
  ['cgroup/getsockopt', row('CGROUP_SOCKOPT', 'CGROUP_GETSOCKOPT')],
  ['cgroup/setsockopt', row('CGROUP_SOCKOPT', 'CGROUP_SETSOCKOPT')],
  ['cgroup/dev', row('CGROUP_DEVICE', 'CGROUP_DEVICE')],
  // bind, connect and their like, one for each address family.
  ...['bind', 'connect', 'sendmsg', 'recvmsg', 'getpeername', 'getsockname'].flatMap((call) =>
    (call === 'bind' ? ['4', '6'] : ['4', '6', '_unix']).map((family): readonly [string, Row] => [
      `cgroup/${call}${family}`,
      row('CGROUP_SOCK_ADDR', sockAddrType(call, family)),
    ]),
  ),
];

function sockAddrType(call: string, family: string): string {
  const name = call.toUpperCase();
  if (family === '_unix') return `CGROUP_UNIX_${name}`;
  return `CGROUP_${/^(SEND|RECV)MSG$/.test(name) ? 'UDP' : 'INET'}${family}_${name}`;
}

const ROWS: ReadonlyMap<string, Row> = new Map([...TRAMPOLINE_ROWS, ...PLAIN_ROWS]);

/** The names that attach through a trampoline, for messages. */
export const TRAMPOLINE_SECTIONS: readonly string[] = TRAMPOLINE_ROWS.map(([name]) => name);

/** What a program section's name says, or undefined when libbpf would not know it either. */
export function sectionMeaning(section: string): SectionMeaning | undefined {
  const autoload = !section.startsWith('?');
  const name = autoload ? section : section.slice(1);
  const whole = ROWS.get(name);
  if (whole !== undefined) return meaning(whole, undefined, autoload);
  const slash = name.indexOf('/');
  const prefix = ROWS.get(name.slice(0, Math.max(0, slash)));
  if (slash < 0 || prefix === undefined || !prefix.takesTarget) return undefined;
  return meaning(prefix, name.slice(slash + 1), autoload);
}

function meaning(
  { kind, programType, attachType, sleepable }: Row,
  behindSlash: string | undefined,
  autoload: boolean,
): SectionMeaning {
  // Only kernel functions are named with their module; a tracepoint's name may have colons of its own.
  const colon = kind === 'plain' ? -1 : (behindSlash?.indexOf(':') ?? -1);
  const target = behindSlash === '' ? undefined : behindSlash?.slice(colon + 1);
  const targetModule = colon > 0 ? behindSlash?.slice(0, colon) : undefined;
  const attachTo =
    kind === 'plain' || target === undefined ? undefined : `${kind === 'lsm' ? 'bpf_lsm_' : ''}${target}`;
  return { kind, target, attachTo, targetModule, sleepable, autoload, programType, attachType };
}
