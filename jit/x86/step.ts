import type { Assembler } from './assembler.ts';

/**
 * Makes a piece of an emitter: everything that `emit` emits carries `name` in its provenance.
 * Pieces nest. `about`, when given, says what this instance is about (the program's name, say).
 */
export function step<C extends { readonly asm: Assembler }, A>(
  name: string,
  emit: (context: C, subject: A) => void,
  about?: (subject: A) => string,
): (context: C, subject: A) => void {
  return (context, subject) => {
    const { asm } = context;
    const outer = asm.enter(name, asm.record ? about?.(subject) : undefined);
    try {
      emit(context, subject);
    } finally {
      asm.leave(outer);
    }
  };
}

/** As `step`, for a piece that needs nothing but the context. */
export function piece<C extends { readonly asm: Assembler }>(
  name: string,
  emit: (context: C) => void,
): (context: C) => void {
  return (context) => {
    const { asm } = context;
    const outer = asm.enter(name, undefined);
    try {
      emit(context);
    } finally {
      asm.leave(outer);
    }
  };
}
