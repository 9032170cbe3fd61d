/*
 * C types, as far as a function's prototype shows them. BTF and C text are both turned into these,
 * so that both give the same model and refuse the same things in the same words.
 */

export type CType =
  | { readonly kind: 'void' }
  | { readonly kind: 'int'; readonly name: string; readonly sizeBytes: number; readonly signed: boolean }
  | { readonly kind: 'float'; readonly name: string }
  | { readonly kind: 'enum'; readonly name: string; readonly sizeBytes: number; readonly signed: boolean }
  | CStruct
  | { readonly kind: 'union'; readonly name: string }
  /** `to` is undefined when nobody says what the name stands for; good enough behind a pointer. */
  | { readonly kind: 'typedef'; readonly name: string; readonly to: CType | undefined }
  | { readonly kind: Qualifier; readonly to: CType }
  | { readonly kind: 'pointer'; readonly to: CType }
  | { readonly kind: 'array'; readonly of: CType; readonly length: number | undefined }
  | CFunction;

export interface CStruct {
  readonly kind: 'struct';
  readonly name: string;
  /** Undefined when nobody tells; good enough behind a pointer. */
  readonly sizeBytes?: number;
  /** As it was written out, in C text. */
  readonly members?: readonly CType[];
}

export interface CFunction {
  readonly kind: 'function';
  readonly ret: CType;
  readonly params: readonly CParam[];
  readonly variadic: boolean;
}

export interface CParam {
  /** Undefined when the prototype leaves it out. */
  readonly name: string | undefined;
  readonly type: CType;
}

export type Qualifier = 'const' | 'volatile' | 'restrict';

/** In the order in which they are spelled. */
const QUALIFIERS: readonly Qualifier[] = ['const', 'volatile', 'restrict'];

function isQualified(type: CType): type is Extract<CType, { kind: Qualifier }> {
  return (QUALIFIERS as readonly string[]).includes(type.kind);
}

/**
 * A type as C spells it, in one canonical way: `unsigned long`, `const char *`, `int (*)(void *)`.
 *
 * @param inner the declarator inside, for the recursion
 */
export function spell(type: CType, inner = ''): string {
  const qualifiers = new Set<Qualifier>();
  let bare = type;
  while (isQualified(bare)) {
    qualifiers.add(bare.kind);
    bare = bare.to;
  }
  const words = QUALIFIERS.filter((word) => qualifiers.has(word)).join(' ');
  switch (bare.kind) {
    case 'pointer': {
      const star = `*${words}${words && inner ? ' ' : ''}${inner}`;
      const to = unqualified(bare.to).kind;
      return spell(bare.to, to === 'function' || to === 'array' ? `(${star})` : star);
    }
    case 'array':
      return spell(bare.of, `${inner}[${bare.length ?? ''}]`);
    case 'function':
      return spell(bare.ret, `${inner}(${spellParams(bare)})`);
    default:
      return [words, leafName(bare), inner].filter((part) => part !== '').join(' ');
  }
}

function spellParams({ params, variadic }: CFunction): string {
  const types = params.map(({ type }) => spell(type));
  if (variadic) types.push('...');
  return types.length === 0 ? 'void' : types.join(', ');
}

function leafName(type: Exclude<CType, { kind: 'pointer' | 'array' | 'function' | Qualifier }>): string {
  switch (type.kind) {
    case 'void':
      return 'void';
    case 'struct':
    case 'union':
    case 'enum':
      return `${type.kind} ${type.name === '' ? '{...}' : type.name}`;
    default:
      return type.name;
  }
}

function unqualified(type: CType): CType {
  let bare = type;
  while (isQualified(bare)) bare = bare.to;
  return bare;
}

/** What a type is once typedefs and qualifiers are seen through; a typedef nobody explains stays. */
export function resolved(type: CType): CType {
  let bare = unqualified(type);
  while (bare.kind === 'typedef' && bare.to !== undefined) bare = unqualified(bare.to);
  return bare;
}

const INTEGER_WORDS: readonly string[] = [
  'signed',
  'unsigned',
  'short',
  'long',
  'int',
  'char',
  '__int128',
  '_Bool',
];

/** The integer keyword that a word is, gcc's other spellings included, or undefined. */
export function integerWord(word: string): string | undefined {
  const plain = word === '__signed__' || word === '__signed' ? 'signed' : word;
  return INTEGER_WORDS.includes(plain) ? plain : undefined;
}

/**
 * The integer type that a set of words names, in any order (`long unsigned int`), or undefined when
 * they name none. Sizes are those of x86-64, where char is signed.
 */
export function integerOf(words: readonly string[]): CType | undefined {
  const count = (word: string): number => words.filter((other) => other === word).length;
  const longs = count('long');
  const unsigned = count('unsigned');
  if (words.length === 0 || longs > 2 || unsigned + count('signed') > 1) return undefined;
  if (words.some((word) => !INTEGER_WORDS.includes(word) || (word !== 'long' && count(word) > 1)))
    return undefined;

  const bases = ['char', 'short', '__int128', '_Bool'].filter((word) => count(word) > 0);
  if (longs > 0) bases.push(longs === 1 ? 'long' : 'long long');
  const [base = 'int'] = bases;
  if (bases.length > 1) return undefined;
  if (count('int') > 0 && (base === 'char' || base === '__int128' || base === '_Bool')) return undefined;
  if (base === '_Bool') {
    return words.length === 1 ? { kind: 'int', name: '_Bool', sizeBytes: 1, signed: false } : undefined;
  }
  const sign = unsigned > 0 ? 'unsigned ' : base === 'char' && count('signed') > 0 ? 'signed ' : '';
  return { kind: 'int', name: `${sign}${base}`, sizeBytes: SIZES[base] ?? 4, signed: unsigned === 0 };
}

const SIZES: Readonly<Record<string, number>> = {
  char: 1,
  short: 2,
  int: 4,
  long: 8,
  'long long': 8,
  __int128: 16,
};
