/** What a judge has to say against a case: a broken rule, where, and what was seen in place of what was expected. */
export interface Finding {
  /** Name of the rule, kebab-case; docs/rules.md describes each. */
  readonly rule: string;
  /** One line for people: what went wrong, without where. */
  readonly detail: string;
  /** The first instruction at fault, where there is one. */
  readonly at?: FindingPlace;
  /** What the rule wants and what came instead: 64-bit values as hex text, anything else in words. */
  readonly expected?: string;
  readonly seen?: string;
  /** The call it was seen in, in one line: arguments, who answered what. */
  readonly situation?: string;
}

/** An instruction of an image. */
export interface FindingPlace {
  /** Bytes from the image's start. */
  readonly offset: number;
  /** Intel syntax. */
  readonly instruction: string;
  /** The emitter's step that it belongs to, e.g. `fentry/invoke_bpf_prog/exit`. */
  readonly step?: string;
}
