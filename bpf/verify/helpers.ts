/*
 * What helpers take and give, as far as the kinds of values go. A helper stands here when its arguments are
 * checked; whether it is there at all is the environment's to say, and its revision's.
 *
 * To add a helper: a row here, and its code where the environment finds addresses.
 *
 * Kernel: struct bpf_func_proto
 */

/** What an argument must be. */
export type HelperArg =
  /** Any value that is initialised. */
  | 'any'
  | 'number'
  | 'map'
  /** Memory as large as the map's keys or values. */
  | 'key'
  | 'value'
  /** ... or null. */
  | 'value?'
  /** ... that the helper fills. */
  | 'value-out'
  /** Memory of as many bytes as the next argument says. */
  | 'memory'
  | 'memory?'
  | 'memory-out'
  | 'memory-out?'
  /** The bytes of the argument before. */
  | 'bytes'
  /** Memory of 8 bytes that the helper fills. */
  | 'u64-out'
  /** Text in memory that cannot change. */
  | 'text'
  /** The context that the program was handed. */
  | 'context'
  /** A function of the program. */
  | 'function'
  /** Memory on the stack, or null: what is handed on to a function. */
  | 'stack?'
  /** A struct of the kernel's. */
  | 'struct'
  /** A struct bpf_spin_lock in a map's value. */
  | 'spin-lock'
  /** What bpf_ringbuf_reserve gave, not null. */
  | 'record';

/** What r0 holds afterwards. */
export type HelperResult =
  | 'number'
  /** A value of the map, or null. */
  | 'value?'
  /** As many bytes as the second argument says, or null. */
  | 'record?'
  /** The current task. */
  | 'task';

export interface HelperProto {
  readonly args: readonly HelperArg[];
  readonly result: HelperResult;
  /** Only programs that may sleep. */
  readonly sleepable?: boolean;
  /** Only programs that a trampoline calls, by where they attach. */
  readonly attach?: readonly string[];
}

const numbers = (...args: HelperArg[]): HelperProto => ({ args, result: 'number' });

const TRACING = ['fentry', 'fexit', 'fmod_ret'];
/** For whatever has a trampoline. Kernel: bpf_prog_has_trampoline */
const trampoline = (...args: HelperArg[]): HelperProto => ({
  args,
  result: 'number',
  attach: [...TRACING, 'lsm'],
});

/** By number; helper-names.ts says how each is called. */
export const HELPERS: Readonly<Record<number, HelperProto>> = {
  // maps
  1: { args: ['map', 'key'], result: 'value?' },
  2: numbers('map', 'key', 'value', 'number'),
  3: numbers('map', 'key'),
  87: numbers('map', 'value', 'number'),
  88: numbers('map', 'value-out'),
  89: numbers('map', 'value-out'),
  164: numbers('map', 'function', 'stack?', 'number'),
  195: { args: ['map', 'key', 'number'], result: 'value?' },
  12: numbers('context', 'map', 'number'),
  93: numbers('spin-lock'),
  94: numbers('spin-lock'),

  // memory of others
  4: numbers('memory-out', 'bytes', 'any'),
  45: numbers('memory-out', 'bytes', 'any'),
  112: numbers('memory-out', 'bytes', 'any'),
  113: numbers('memory-out', 'bytes', 'any'),
  114: numbers('memory-out', 'bytes', 'any'),
  115: numbers('memory-out', 'bytes', 'any'),
  36: numbers('any', 'memory', 'bytes'),
  148: { args: ['memory-out', 'bytes', 'any'], result: 'number', sleepable: true },
  191: { args: ['memory-out', 'bytes', 'any', 'struct', 'number'], result: 'number', sleepable: true },

  // time, chance, where and for whom
  5: numbers(),
  7: numbers(),
  8: numbers(),
  14: numbers(),
  15: numbers(),
  16: numbers('memory-out', 'bytes'),
  35: numbers(),
  42: numbers(),
  80: numbers(),
  118: numbers(),
  120: numbers('number', 'number', 'memory-out', 'bytes'),
  123: numbers('number'),
  125: numbers(),
  158: { args: [], result: 'task' },
  160: numbers(),
  208: numbers(),
  109: numbers('number'),
  117: numbers('number'),

  // text
  // What else it takes is the text's affair: it may be left out.
  6: numbers('memory', 'bytes'),
  177: numbers('memory', 'bytes', 'memory?', 'bytes'),
  165: numbers('memory-out?', 'bytes', 'text', 'memory?', 'bytes'),
  105: numbers('memory', 'bytes', 'number', 'u64-out'),
  106: numbers('memory', 'bytes', 'number', 'u64-out'),
  182: numbers('memory', 'number', 'text'),

  // what others are told
  25: numbers('context', 'map', 'number', 'memory', 'bytes'),
  22: numbers('map', 'number'),
  55: numbers('map', 'number', 'memory-out', 'bytes'),
  130: numbers('map', 'memory', 'bytes', 'number'),
  131: { args: ['map', 'number', 'number'], result: 'record?' },
  132: numbers('record', 'number'),
  133: numbers('record', 'number'),
  134: numbers('map', 'number'),

  // stacks, and loops
  27: numbers('context', 'map', 'number'),
  67: numbers('context', 'memory-out', 'bytes', 'number'),
  141: numbers('struct', 'memory-out', 'bytes', 'number'),
  181: numbers('number', 'function', 'stack?', 'number'),

  // what the trampoline keeps
  173: { args: ['context'], result: 'number', attach: TRACING },
  174: trampoline('context'),
  183: trampoline('context', 'number', 'u64-out'),
  184: trampoline('context', 'u64-out'),
  185: trampoline('context'),
};

/** Helpers by number that the stage treats apart. */
export const Helper = {
  TAIL_CALL: 12,
  GET_SMP_PROCESSOR_ID: 8,
  FOR_EACH_MAP_ELEM: 164,
  GET_FUNC_IP: 173,
  GET_ATTACH_COOKIE: 174,
  LOOP: 181,
  GET_FUNC_ARG: 183,
  GET_FUNC_RET: 184,
  GET_FUNC_ARG_CNT: 185,
} as const;
