import {
  type CallDepthConfig,
  type CfiConfig,
  HelperPair,
  type ProgRef,
  REVISIONS,
  type RevisionName,
  type TrampolineConfig,
  type TrampolineRequest,
} from '../jit/index.ts';
import { type Kaddr, kaddr } from '../lib/index.ts';
import type { Fields } from './fields.ts';

/** An emitter's request as `tramplab emit` and `tramplab listing` read it. */
interface EmitRequest {
  readonly revision: RevisionName;
  readonly request: TrampolineRequest;
}

const NONE = kaddr(0);

/** @throws InputError naming the field */
export function readEmitRequest(fields: Fields): EmitRequest {
  return {
    revision: fields.oneOf('revision', REVISIONS),
    request: {
      image: fields.address('image'),
      imageSize: fields.integer('imageSize', 4096),
      im: fields.address('im', NONE),
      origCall: fields.address('origCall', NONE),
      argSizes: fields.integers('argSizes'),
      retSize: fields.integer('retSize', 8),
      flags: fields.integer('flags'),
      fentry: progs(fields, 'fentry'),
      fmodRet: progs(fields, 'fmodRet'),
      fexit: progs(fields, 'fexit'),
      helpers: helpers(fields.object('helpers')),
      config: config(fields.object('config')),
    },
  };
}

function progs(fields: Fields, kind: string): ProgRef[] {
  return fields.objects(kind).map((prog, i): ProgRef => {
    const jited = prog.boolean('jited', true);
    return {
      prog: prog.address('prog'),
      bpfFunc: prog.address('bpfFunc'),
      // Only the interpreter is handed the instructions.
      insnsi: jited ? prog.address('insnsi', NONE) : prog.address('insnsi'),
      sleepable: prog.boolean('sleepable', false),
      jited,
      kind: prog.integerOf('kind', Object.values(HelperPair), HelperPair.RECUR),
      cookie: prog.address('cookie', NONE),
      name: `${kind}[${i}]`,
    };
  });
}

function helpers(fields: Fields): Record<string, Kaddr> {
  return Object.fromEntries(fields.names().map((name) => [name, fields.address(name)]));
}

function config(fields: Fields): TrampolineConfig {
  const cfi = fields.raw('cfi') === undefined ? {} : { cfi: cfiConfig(fields.object('cfi')) };
  const callDepth =
    fields.raw('callDepth') === undefined ? {} : { callDepth: callDepthConfig(fields.object('callDepth')) };
  return {
    ibt: fields.boolean('ibt', false),
    rethunk: fields.boolean('rethunk', false),
    sls: fields.boolean('sls', false),
    origCallStartsWithEndbr: fields.boolean('origCallStartsWithEndbr', false),
    ...cfi,
    ...callDepth,
  };
}

function cfiConfig(fields: Fields): CfiConfig {
  return {
    scheme: fields.oneOf('scheme', ['fineibt', 'kcfi']),
    hash: fields.word32('hash'),
    callPadding: fields.boolean('callPadding', false),
  };
}

function callDepthConfig(fields: Fields): CallDepthConfig {
  return { counter: fields.address('counter'), thunks: fields.addresses('thunks') };
}
