import type { KernelName } from './combination.ts';

/*
 * What a function that is traced looks like from both sides: how a guest reaches it, and what stands for it
 * in our lab.
 */

/** A word of a call: what it holds, or `given` when the kernel alone decides it, such as a pointer of its own. */
export interface ArgWord {
  readonly value: bigint | 'given';
  /** Bits that mean something: a caller may leave anything above them. */
  readonly bits: number;
  /** The verifier lets no program load it from its context (`const void *`): it has to be asked for. */
  readonly askFor?: boolean;
}

/** What a guest says of a call that it made. */
export interface CallResult {
  readonly result: number;
  /** The program's value, of BPF_PROG_TEST_RUN. */
  readonly retval?: number;
}

/** How a guest makes the kernel call a function. */
export interface Caller {
  /** Commands before anything is attached: files, sockets, programs that the call needs. */
  readonly prepare: readonly string[];
  /** Commands of one call; the answer has the tag. */
  readonly call: (tag: string) => readonly string[];
  /** What the guest must say when the function returned this (64 bits, unsigned); undefined: it cannot tell. */
  readonly outcome: ((returned: bigint) => CallResult) | undefined;
  /** Commands that have a task call the function and sleep in it, and those that let it go on. */
  readonly park?: (tag: string) => readonly string[];
  readonly wake?: (tag: string) => readonly string[];
}

/** A struct of operations that the kernel keeps in a list. */
export interface StructOps {
  readonly type: string;
  /** Symbol of the list. */
  readonly list: string;
  /** What the struct shall be called. */
  readonly name: string;
  /** The member that a call calls: the target's prototype is its. */
  readonly called: string;
}

export interface Target {
  /** The function's name in the kernel; of a target that is a program, a name of ours. */
  readonly fn: string;
  /** As C declares it. */
  readonly prototype: string;
  /** By word, structs spread out. */
  readonly args: readonly ArgWord[];
  /** Width of the result, bits; 0 for void. */
  readonly retBits: number;
  /** What the function does in our lab, as assembly text: the part behind the trace site. */
  readonly body: string;
  readonly caller: Caller | Readonly<Record<KernelName, Caller>>;
  /** The script's words that name it when a program is loaded. */
  readonly attachTo: string;
  /** The script's word for its address. */
  readonly where: string;
  /** Commands that make it, when it is not a function of the kernel; of a program for it, words that load it. */
  readonly made?: { readonly commands: readonly string[]; readonly freplaceWords: string };
  /** It can reach a tail call: its trampoline keeps rax. */
  readonly tailCalls?: boolean;
  /** It is no function but a struct of them, which programs fill. */
  readonly struct?: StructOps;
  /** A program can call it, by deleting the element of a map that the script calls by this name. */
  readonly recurse?: string;
}

/** Words of a call: bits of each, and what it holds. */
export function words(...list: readonly (readonly [bits: number, value: bigint | 'given'])[]): ArgWord[] {
  return list.map(([bits, value]) => ({ bits, value }));
}

/** A pointer of the kernel's that programs must ask for. */
export const askedFor: ArgWord = { bits: 64, value: 'given', askFor: true };

export function callerOn(target: Target, kernel: KernelName): Caller {
  return 'prepare' in target.caller ? target.caller : target.caller[kernel];
}
