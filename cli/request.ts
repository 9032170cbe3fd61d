import { type ProgRef, REVISIONS, type RevisionName, type TrampolineRequest } from '../jit/index.ts';
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
      name: `${kind}[${i}]`,
    };
  });
}

function helpers(fields: Fields): Record<string, Kaddr> {
  return Object.fromEntries(fields.names().map((name) => [name, fields.address(name)]));
}
