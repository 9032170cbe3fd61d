/*
 * Emitters with one mistake: a revision whose pieces emit through an assembler that alters some of the
 * instructions on their way. The emitters themselves know nothing of it.
 */

import type { TrampolineRequest } from '../request.ts';
import type { Emission, Frame, Invocation, Revision } from '../rev/revision.ts';
import type { Assembler } from '../x86/assembler.ts';
import type { Mem } from '../x86/operand.ts';

/** An emitter that is almost another one. */
export type Change = (revision: Revision) => Revision;

/** The pieces of a revision that emit. */
export type PieceName = {
  [K in keyof Revision]: Revision[K] extends (emission: Emission, ...rest: never[]) => void ? K : never;
}[keyof Revision];

/** Methods of the assembler to be called in place of its own. They call `asm` for what shall be emitted after all. */
export type Edits = Partial<Assembler>;

/** Makes the edits for one run of a piece. */
export type Editing = (asm: Assembler, emission: Emission) => Edits;

/** The revision, with every instruction of one piece (and of the pieces it calls) offered to the edits first. */
export function inPiece(name: PieceName, editing: Editing): Change {
  return (revision) => {
    const own = revision[name] as (emission: Emission, ...rest: unknown[]) => void;
    return {
      ...revision,
      [name]: (emission: Emission, ...rest: unknown[]) =>
        through(emission, editing, (edited) => own(edited, ...rest)),
    };
  };
}

/** Runs `emit` with an assembler that offers every instruction to the edits first. */
export function through(emission: Emission, editing: Editing, emit: (edited: Emission) => void): void {
  within(emission, { asm: overlay(emission.asm, editing(emission.asm, emission)) }, emit);
}

/** Runs `emit` with a part of the emission exchanged; what it finds out counts for the whole. */
export function within(
  emission: Emission,
  exchanged: Partial<Emission>,
  emit: (changed: Emission) => void,
): void {
  const changed = { ...emission, ...exchanged };
  emit(changed);
  emission.ipAfterCall = changed.ipAfterCall;
  emission.ipEpilogue = changed.ipEpilogue;
}

/** The revision, with something emitted before a piece. */
export function before(name: PieceName, emit: (emission: Emission, revision: Revision) => void): Change {
  return replacing(name, (emission, revision, own) => {
    emit(emission, revision);
    own(emission);
  });
}

/** The revision, with something emitted behind a piece. */
export function behind(name: PieceName, emit: (emission: Emission, revision: Revision) => void): Change {
  return replacing(name, (emission, revision, own) => {
    own(emission);
    emit(emission, revision);
  });
}

/** The revision without a piece. */
export function without(name: PieceName): Change {
  return replacing(name, () => undefined);
}

/** The revision with a piece of one's own, which may emit the one it stands for. */
export function replacing(
  name: PieceName,
  emit: (emission: Emission, revision: Revision, own: (emission: Emission) => void) => void,
): Change {
  return (revision) => {
    const own = revision[name] as (emission: Emission, ...rest: unknown[]) => void;
    return {
      ...revision,
      [name]: (emission: Emission, ...rest: unknown[]) =>
        emit(emission, revision, (given) => own(given, ...rest)),
    };
  };
}

/** The revision, with each program invoked in another way. */
export function withInvocation(change: (invocation: Invocation, emission: Emission) => Invocation): Change {
  return (revision) => ({
    ...revision,
    invokeProg: (emission, invocation) => revision.invokeProg(emission, change(invocation, emission)),
  });
}

/** The revision with another frame. */
export function withFrame(
  change: (frame: Frame, request: TrampolineRequest, flags: number) => Frame,
): Change {
  return (revision) => ({
    ...revision,
    frame: (request, flags) => change(revision.frame(request, flags), request, flags),
  });
}

/** The revision with its arguments kept in other slots. */
export function withSlots(
  change: (slot: (index: number) => Mem, frame: Frame, request: TrampolineRequest) => (index: number) => Mem,
): Change {
  return withFrame((frame, request) => {
    const slotOf = change(frame.arg, frame, request);
    // v6 kernels look at the words, earlier ones at `arg`.
    const words = frame.words.map((word, i) => ({ ...word, slot: slotOf(i) }));
    const regWords = words.filter((word) => word.reg !== undefined);
    return {
      ...frame,
      arg: slotOf,
      words,
      regWords,
      stackWords: words.filter((word) => word.reg === undefined),
    };
  });
}

/** Several changes, one on top of the other. */
export function all(...changes: readonly Change[]): Change {
  return (revision) => changes.reduce((changed, change) => change(changed), revision);
}

function overlay(asm: Assembler, edits: Edits): Assembler {
  return new Proxy(asm, {
    get(target, name) {
      const edit = edits[name as keyof Edits];
      if (edit !== undefined) return edit;
      const own: unknown = Reflect.get(target, name, target);
      return typeof own === 'function' ? own.bind(target) : own;
    },
  });
}
