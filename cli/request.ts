import { type ProgRef, REVISIONS, type RevisionName, type TrampolineRequest } from '../jit/index.ts';
import { InputError, type Kaddr, kaddr } from '../lib/index.ts';
import { address, boolean, integer, type Json, list, object, oneOf } from './json-lines.ts';

/** An emitter's request as `tramplab emit` and `tramplab listing` read it. */
export interface EmitRequest {
  readonly revision: RevisionName;
  readonly request: TrampolineRequest;
}

const NONE = kaddr(0);

/** @throws InputError naming the field */
export function readEmitRequest(json: Json): EmitRequest {
  return {
    revision: oneOf(json, 'revision', REVISIONS),
    request: {
      image: address(json, 'image'),
      imageSize: integer(json, 'imageSize', 4096),
      im: address(json, 'im', NONE),
      origCall: address(json, 'origCall', NONE),
      argSizes: list(json, 'argSizes').map((size, i) => {
        if (typeof size === 'number') return size;
        throw new InputError(`argSizes[${i}]`, undefined, 'wanted a size in bytes');
      }),
      retSize: integer(json, 'retSize', 8),
      flags: integer(json, 'flags'),
      fentry: progs(json, 'fentry'),
      fmodRet: progs(json, 'fmodRet'),
      fexit: progs(json, 'fexit'),
      helpers: helpers(json),
    },
  };
}

function progs(json: Json, field: string): ProgRef[] {
  return list(json, field).map((item, i): ProgRef => {
    const prog = object(item, `${field}[${i}]`);
    const jited = boolean(prog, 'jited', true);
    return {
      prog: address(prog, 'prog'),
      bpfFunc: address(prog, 'bpfFunc'),
      insnsi: jited ? address(prog, 'insnsi', NONE) : address(prog, 'insnsi'),
      sleepable: boolean(prog, 'sleepable', false),
      jited,
      name: `${field}[${i}]`,
    };
  });
}

function helpers(json: Json): Record<string, Kaddr> {
  const given = object(json['helpers'], 'helpers');
  return Object.fromEntries(Object.keys(given).map((name) => [name, address(given, name)]));
}
