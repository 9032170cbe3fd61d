import { InputError } from '../lib/index.ts';
import {
  type CFunction,
  type CParam,
  type CType,
  integerOf,
  integerWord,
  type Qualifier,
  resolved,
} from './ctype.ts';
import { distill, type FuncModel, partName } from './model.ts';
import { structBytes } from './struct-size.ts';
import { shown } from './text.ts';

/*
 * C prototypes as people write them for a target without BTF: `int f(int a, const char *name)`.
 * The part of C's declaration grammar that a prototype needs (ISO C, 6.7), by recursive descent.
 */

/**
 * The model of one C prototype.
 *
 * Takes every spelling of the integer types, the kernel's typedefs ({@link TYPEDEFS}), pointers of any
 * kind, enums (as the unsigned int that gcc makes of one without negative values), arrays and functions
 * as parameters (which C turns into pointers), structs by value with their members written out, qualifiers,
 * storage classes and attributes.
 *
 * @param text one prototype; a `;` at the end is optional
 * @param from where the text came from, for messages
 * @throws InputError naming the column (from 1) and the reason
 */
export function parsePrototype(text: string, from = 'prototype'): FuncModel {
  return new PrototypeParser(text, from).parse();
}

/** Longer texts are no prototype; the limit bounds the nesting too. */
const MAX_TEXT = 2048;

interface Token {
  readonly text: string;
  readonly kind: 'word' | 'number' | 'mark' | 'end';
  /** From 1. */
  readonly column: number;
}

/** A declarator: the name in it, and what it makes of the type before it. */
interface Declarator {
  readonly name: Token | undefined;
  readonly wrap: (base: CType) => CType;
}

const TOKEN = /\s*(?:([A-Za-z_]\w*)|(\d\w*)|(\.\.\.|[^\s\w]))/y;

const QUALIFIERS: ReadonlyMap<string, Qualifier> = new Map([
  ['const', 'const'],
  ['__const', 'const'],
  ['volatile', 'volatile'],
  ['__volatile__', 'volatile'],
  ['restrict', 'restrict'],
  ['__restrict', 'restrict'],
  ['__restrict__', 'restrict'],
]);

/** Words that say nothing about the type. */
const IGNORED: ReadonlySet<string> = new Set(
  (
    'static extern inline register _Noreturn __inline __inline__ __always_inline noinline notrace asmlinkage ' +
    '__visible __weak __used __init __exit __sched __cold __pure __must_check __maybe_unused __always_unused ' +
    '__user __kernel __iomem __percpu __rcu __force __bpf_kfunc __noreturn __extension__'
  ).split(' '),
);

const FLOATS: ReadonlySet<string> = new Set(['float', 'double', '_Complex', '_Float16', '__float128']);

const typedef = (sizeBytes: 1 | 2 | 4 | 8, signed: boolean, names: string): [string, CType][] =>
  names.split(' ').map((name) => {
    const to: CType = { kind: 'int', name, sizeBytes, signed };
    return [name, { kind: 'typedef', name, to }];
  });

/** The typedefs that are known by name. Kernel: include/linux/types.h, include/uapi/asm-generic/. */
const TYPEDEFS: ReadonlyMap<string, CType> = new Map([
  ...typedef(1, false, 'u8 __u8 uint8_t u_int8_t unchar u_char bool blk_status_t'),
  ...typedef(1, true, 's8 __s8 int8_t'),
  ...typedef(2, false, 'u16 __u16 uint16_t u_int16_t ushort u_short umode_t __le16 __be16 __sum16'),
  ...typedef(2, true, 's16 __s16 int16_t'),
  ...typedef(
    4,
    false,
    'u32 __u32 uint32_t u_int32_t uint u_int uid_t gid_t dev_t gfp_t fmode_t slab_flags_t',
  ),
  ...typedef(4, false, '__le32 __be32 __wsum __poll_t vm_fault_t blk_qc_t nlink_t projid_t'),
  ...typedef(4, true, 's32 __s32 int32_t pid_t key_t clockid_t timer_t'),
  ...typedef(8, false, 'u64 __u64 uint64_t u_int64_t ulong u_long size_t uintptr_t pgoff_t ino_t cycles_t'),
  ...typedef(8, false, '__le64 __be64 sector_t blkcnt_t dma_addr_t phys_addr_t resource_size_t'),
  ...typedef(8, true, 's64 __s64 int64_t ssize_t loff_t off_t ptrdiff_t intptr_t time64_t ktime_t'),
]);

class PrototypeParser {
  readonly #text: string;
  readonly #from: string;
  readonly #tokens: readonly Token[];
  #next = 0;
  /** Column of each parameter, filled by the outermost parameter list. */
  readonly #columns: Map<CParam, number> = new Map<CParam, number>();

  constructor(text: string, from: string) {
    this.#text = text;
    this.#from = from;
    if (text.length > MAX_TEXT) throw new InputError(from, undefined, `longer than ${MAX_TEXT} characters`);
    this.#tokens = this.#scan();
  }

  parse(): FuncModel {
    const base = this.#specifiers();
    const { name, wrap } = this.#declarator();
    this.#skipIgnored();
    if (this.#peek().text === '{') this.#fail(this.#peek(), 'a function body; give the prototype only');
    if (this.#peek().text === ',')
      this.#fail(this.#peek(), 'a second declaration; give one prototype at a time');
    if (this.#peek().text === ';') this.#next++;
    if (this.#peek().kind !== 'end') this.#fail(this.#peek(), `expected the end, not '${this.#peek().text}'`);
    if (name === undefined) this.#fail(this.#peek(), 'the function has no name');
    const type = wrap(base);
    if (type.kind !== 'function') this.#fail(name, `'${name.text}' is no function: it has no parameter list`);
    return distill(name.text, type, (part, reason) => {
      const param = typeof part === 'number' ? type.params[part] : undefined;
      const column = param === undefined ? name.column : (this.#columns.get(param) ?? name.column);
      this.#failAt(column, `${partName(type, part)} ${reason}`);
    });
  }

  /** Declaration specifiers: what stands before the declarator. */
  #specifiers(): CType {
    const start = this.#peek();
    const qualifiers: Qualifier[] = [];
    const words: string[] = [];
    let other: CType | undefined;
    for (;;) {
      this.#skipIgnored();
      const token = this.#peek();
      if (token.kind !== 'word') break;
      const qualifier = QUALIFIERS.get(token.text);
      const word = integerWord(token.text);
      if (qualifier !== undefined) {
        qualifiers.push(qualifier);
      } else if (word !== undefined) {
        words.push(word);
      } else if (FLOATS.has(token.text)) {
        other = { kind: 'float', name: [...words.splice(0), token.text].join(' ') };
      } else if (other !== undefined || words.length > 0) {
        break;
      } else {
        other = this.#namedType(token);
        continue;
      }
      this.#next++;
    }
    // `long double`, in either order.
    if (other?.kind === 'float') other = { kind: 'float', name: [...words.splice(0), other.name].join(' ') };
    if (other !== undefined && words.length > 0)
      this.#fail(start, `two types at once: ${words.join(' ')} and another`);
    const type = other ?? integerOf(words);
    if (type === undefined) {
      this.#fail(start, words.length === 0 ? 'expected a type' : `'${words.join(' ')}' is no type of C`);
    }
    return qualifiers.reduce<CType>((to, kind) => ({ kind, to }), type);
  }

  /** `void`, a tagged type or a typedef name; the token is taken. */
  #namedType(token: Token): CType {
    this.#next++;
    const { text } = token;
    if (text === 'void') return { kind: 'void' };
    if (text === 'struct' || text === 'union' || text === 'enum') {
      this.#skipIgnored();
      const tag = this.#peek();
      if (tag.kind !== 'word') this.#fail(tag, `expected the name of the ${text}`);
      this.#next++;
      const after = this.#peek();
      if (after.text === '{' && text === 'struct') return this.#structBody(tag.text);
      if (after.text === '{') this.#fail(after, `a definition of ${text} ${tag.text}; give its name only`);
      if (text !== 'enum') return { kind: text, name: tag.text };
      return { kind: 'enum', name: tag.text, sizeBytes: 4, signed: false };
    }
    return TYPEDEFS.get(text) ?? { kind: 'typedef', name: text, to: undefined };
  }

  /** `{ long a, b; char c[4]; }`: members as they lie in the struct. Bit fields are refused. */
  #structBody(name: string): CType {
    this.#expect('{');
    const members: CType[] = [];
    while (this.#peek().text !== '}') {
      const base = this.#specifiers();
      for (;;) {
        const start = this.#peek();
        const { name: member, wrap } = this.#declarator();
        const type = wrap(base);
        if (member === undefined) this.#fail(start, `expected the name of a member of struct ${name}`);
        if (structBytes([type]) === undefined) {
          this.#fail(start, `member ${member.text} of struct ${name} has a size that is not known`);
        }
        members.push(type);
        if (this.#peek().text !== ',') break;
        this.#next++;
      }
      this.#expect(';');
    }
    this.#expect('}');
    return { kind: 'struct', name, members, sizeBytes: structBytes(members) ?? 0 };
  }

  #declarator(): Declarator {
    const pointers: Qualifier[][] = [];
    this.#skipIgnored();
    while (this.#peek().text === '*') {
      this.#next++;
      pointers.push(this.#qualifiers());
    }
    const point = (base: CType): CType =>
      pointers.reduce<CType>(
        (to, qualifiers) =>
          qualifiers.reduce<CType>((inner, kind) => ({ kind, to: inner }), { kind: 'pointer', to }),
        base,
      );
    const { name, wrap: inner } = this.#directDeclarator();
    const suffix = this.#suffixes();
    return { name, wrap: (base) => inner(suffix(point(base))) };
  }

  /** A name, a declarator in parentheses, or nothing. */
  #directDeclarator(): Declarator {
    const token = this.#peek();
    if (token.kind === 'word') {
      this.#next++;
      return { name: token, wrap: (base) => base };
    }
    if (token.text === '(' && this.#opensDeclarator()) {
      this.#next++;
      const inner = this.#declarator();
      this.#expect(')');
      return inner;
    }
    return { name: undefined, wrap: (base) => base };
  }

  /** Whether the `(` ahead holds a declarator and not parameters: `(*f)`, `(f)`, but not `(int)` or `()`. */
  #opensDeclarator(): boolean {
    const after = this.#tokens[this.#next + 1];
    if (after === undefined || after.kind !== 'word') return after?.text === '*' || after?.text === '(';
    if (IGNORED.has(after.text) || after.text === '__attribute__') return true;
    return !this.#startsType(after.text) && this.#tokens[this.#next + 2]?.text !== '*';
  }

  #startsType(word: string): boolean {
    return (
      integerWord(word) !== undefined ||
      FLOATS.has(word) ||
      TYPEDEFS.has(word) ||
      QUALIFIERS.has(word) ||
      ['void', 'struct', 'union', 'enum'].includes(word)
    );
  }

  /** `[n]` and `(parameters)` after a declarator; the first is the outermost. */
  #suffixes(): (base: CType) => CType {
    const token = this.#peek();
    if (token.text === '[') {
      const length = this.#arrayLength();
      const rest = this.#suffixes();
      return (base) => ({ kind: 'array', of: rest(base), length });
    }
    if (token.text === '(') {
      const { params, variadic } = this.#params();
      const rest = this.#suffixes();
      return (base): CFunction => ({ kind: 'function', ret: rest(base), params, variadic });
    }
    return (base) => base;
  }

  #arrayLength(): number | undefined {
    this.#expect('[');
    while (this.#peek().text === 'static' || QUALIFIERS.has(this.#peek().text)) this.#next++;
    const token = this.#peek();
    if (token.kind === 'number' || token.kind === 'word') this.#next++;
    this.#expect(']');
    const length = token.kind === 'number' ? Number(token.text) : Number.NaN;
    return Number.isSafeInteger(length) ? length : undefined;
  }

  #params(): { params: readonly CParam[]; variadic: boolean } {
    const open = this.#expect('(');
    if (this.#peek().text === ')') {
      this.#fail(
        open,
        "an empty parameter list leaves the arguments open; write '(void)' when there are none",
      );
    }
    const params: CParam[] = [];
    for (;;) {
      const start = this.#peek();
      if (start.text === '...') {
        if (params.length === 0) this.#fail(start, "'...' needs a parameter before it");
        this.#next++;
        this.#expect(')');
        return { params, variadic: true };
      }
      const base = this.#specifiers();
      const { name, wrap } = this.#declarator();
      this.#skipIgnored();
      const param = { name: name?.text, type: decayed(wrap(base)) };
      params.push(param);
      this.#columns.set(param, start.column);
      if (this.#peek().text !== ',') break;
      this.#next++;
    }
    this.#expect(')');
    const [only] = params;
    const isVoid = params.length === 1 && only?.name === undefined && only?.type.kind === 'void';
    return { params: isVoid ? [] : params, variadic: false };
  }

  #qualifiers(): Qualifier[] {
    const found: Qualifier[] = [];
    for (;;) {
      this.#skipIgnored();
      const qualifier = QUALIFIERS.get(this.#peek().text);
      if (qualifier === undefined) return found;
      found.push(qualifier);
      this.#next++;
    }
  }

  /** Storage classes, annotations and `__attribute__((...))`. */
  #skipIgnored(): void {
    for (;;) {
      const { text } = this.#peek();
      if (IGNORED.has(text)) this.#next++;
      else if (text === '__attribute__' || text === '__attribute') this.#skipAttribute();
      else return;
    }
  }

  #skipAttribute(): void {
    this.#next++;
    this.#expect('(');
    for (let depth = 1; depth > 0; this.#next++) {
      const { text, kind } = this.#peek();
      if (kind === 'end') this.#fail(this.#peek(), 'the attribute is not closed');
      if (text === '(') depth++;
      if (text === ')') depth--;
    }
  }

  #scan(): Token[] {
    const tokens: Token[] = [];
    TOKEN.lastIndex = 0;
    for (;;) {
      const at = TOKEN.lastIndex;
      const match = TOKEN.exec(this.#text);
      if (match === null) {
        tokens.push({
          text: '',
          kind: 'end',
          column: at + (this.#text.slice(at).match(/^\s*/)?.[0].length ?? 0) + 1,
        });
        return tokens;
      }
      const [all, word, number, mark] = match;
      const text = word ?? number ?? mark ?? '';
      const kind = word !== undefined ? 'word' : number !== undefined ? 'number' : 'mark';
      tokens.push({ text, kind, column: at + all.length - text.length + 1 });
    }
  }

  #peek(): Token {
    return (
      this.#tokens[Math.min(this.#next, this.#tokens.length - 1)] ?? { text: '', kind: 'end', column: 1 }
    );
  }

  #expect(mark: string): Token {
    const token = this.#peek();
    if (token.text !== mark) {
      this.#fail(token, `expected '${mark}', not ${token.kind === 'end' ? 'the end' : `'${token.text}'`}`);
    }
    this.#next++;
    return token;
  }

  #fail(token: Token, message: string): never {
    return this.#failAt(token.column, message);
  }

  #failAt(column: number, message: string): never {
    throw new InputError(this.#from, `column ${column}`, `${shown(message)}, in '${shown(this.#text)}'`);
  }
}

/** What C makes of a parameter's type: an array becomes a pointer to its element, a function one to itself. */
function decayed(type: CType): CType {
  const bare = resolved(type);
  if (bare.kind === 'array') return { kind: 'pointer', to: bare.of };
  if (bare.kind === 'function') return { kind: 'pointer', to: bare };
  return type;
}
