/**
 * The grammar of assembly text: lines to labels and statements. Knows registers and operand shapes,
 * nothing of encodings or of what a mnemonic means.
 */

import { InputError } from '../lib/index.ts';

export interface RegisterOperand {
  readonly kind: 'register';
  /** Lower case, as Intel names it: `rax`, `r8b`, `cr3`. */
  readonly name: string;
}

/** A number, an address, or the sum of both. */
export interface ValueOperand {
  readonly kind: 'value';
  readonly value: bigint;
  /** A label or symbol whose address is added. */
  readonly symbol: string | undefined;
  /** Written with `offset`: the address itself is meant. */
  readonly offset: boolean;
}

export interface MemoryOperand {
  readonly kind: 'memory';
  /** Bytes, as written before `ptr`. */
  readonly size: number | undefined;
  readonly segment: string | undefined;
  /** A register, `rip` among them. */
  readonly base: string | undefined;
  readonly index: string | undefined;
  /** Factor of the index: 1, 2, 4 or 8. */
  readonly scale: number;
  readonly displacement: bigint;
  /** A label or symbol whose address is added. */
  readonly symbol: string | undefined;
}

export type Operand = RegisterOperand | ValueOperand | MemoryOperand;

/** One instruction as written. */
export interface Statement {
  readonly line: number;
  readonly text: string;
  /** `lock`, `rep`, `repne`; the synonyms are gone. */
  readonly prefixes: readonly string[];
  /** Lower case, as written. */
  readonly mnemonic: string;
  readonly operands: readonly Operand[];
}

export interface Label {
  readonly line: number;
  readonly name: string;
  /** Index of the statement it stands before; the number of statements when it stands at the end. */
  readonly before: number;
}

export interface ParsedText {
  readonly statements: readonly Statement[];
  readonly labels: readonly Label[];
  /** Comments after `;` that have the form of an instruction: where `;` separates, they would be one. */
  readonly doubtful: readonly Statement[];
}

/** Bytes of each size keyword, in the spelling keystone knows. */
export const SIZE_OF: ReadonlyMap<string, number> = new Map([
  ['byte', 1],
  ['word', 2],
  ['dword', 4],
  ['fword', 6],
  ['qword', 8],
  ['tbyte', 10],
  ['xmmword', 16],
  ['ymmword', 32],
  ['zmmword', 64],
]);

const SEGMENTS = new Set(['cs', 'ds', 'es', 'fs', 'gs', 'ss']);
const ADDRESS_REGISTER = /^(?:[re](?:[abcd]x|[sd]i|[sb]p)|r(?:[89]|1[0-5])d?|rip)$/;
const OTHER_REGISTER =
  /^(?:[abcd][lhx]|[sd]il?|[sb]pl?|r(?:[89]|1[0-5])[wb]|[cdefgs]s|[cd]r(?:\d|1[0-5])|[xyz]mm(?:[12]?\d|3[01])|k[0-7])$/;

const PREFIXES: ReadonlyMap<string, string> = new Map([
  ['lock', 'lock'],
  ['rep', 'rep'],
  ['repe', 'rep'],
  ['repz', 'rep'],
  ['repne', 'repne'],
  ['repnz', 'repne'],
]);

const ESCAPES: ReadonlyMap<string, number> = new Map([
  ['n', 10],
  ['t', 9],
  ['r', 13],
  ['0', 0],
  ['\\', 92],
  ["'", 39],
]);

type TokenKind = 'name' | 'number' | 'punctuation' | 'end';

interface Token {
  readonly kind: TokenKind;
  readonly text: string;
  readonly value: bigint;
  readonly at: number;
}

type Fail = (message: string) => never;

const isRegister = (name: string): boolean => ADDRESS_REGISTER.test(name) || OTHER_REGISTER.test(name);

/** Parses a whole text. @throws InputError on the first line that has no meaning. */
export function parseText(source: string, file: string): ParsedText {
  const statements: Statement[] = [];
  const labels: Label[] = [];
  const doubtful: Statement[] = [];
  for (const [i, text] of source.split(/\r\n|\n|\r/).entries()) {
    const line = i + 1;
    const fail: Fail = (message) => {
      throw new InputError(file, `line ${line}`, message);
    };
    const parser = new LineParser(text, line, fail);
    for (let name = parser.label(); name !== undefined; name = parser.label()) {
      labels.push({ line, name, before: statements.length });
    }
    const statement = parser.statement();
    if (statement === undefined) continue;
    statements.push(statement);
    const comment = parser.rest();
    if (comment.startsWith(';')) doubtful.push(...asStatement(comment.slice(1), line));
  }
  return { statements, labels, doubtful };
}

/** The statement that a comment would be if it were one. */
function asStatement(comment: string, line: number): Statement[] {
  try {
    const notOne: Fail = (message) => {
      throw new InputError('comment', undefined, message);
    };
    const statement = new LineParser(comment, line, notOne).statement();
    return statement === undefined ? [] : [statement];
  } catch (error) {
    if (error instanceof InputError) return [];
    throw error;
  }
}

class LineParser {
  private readonly tokens: readonly Token[];
  private next = 0;
  private readonly text: string;
  private readonly line: number;
  private readonly fail: Fail;

  constructor(text: string, line: number, fail: Fail) {
    this.text = text;
    this.line = line;
    this.fail = fail;
    this.tokens = tokenize(text, fail);
  }

  /** Takes `name:` off the front. */
  label(): string | undefined {
    const { kind, text } = this.peek();
    if (this.peek(1).text !== ':') return undefined;
    if (kind === 'number') this.fail(`numeric label '${text}:' is not supported; give it a name`);
    if (kind !== 'name') return undefined;
    if (isRegister(text.toLowerCase())) this.fail(`'${text}' is a register and cannot be a label`);
    this.next += 2;
    return text;
  }

  /** The instruction of the line, if it has one. */
  statement(): Statement | undefined {
    const first = this.peek();
    if (first.kind === 'end') return undefined;
    if (first.text.startsWith('.')) {
      this.directive();
      return undefined;
    }
    const prefixes: string[] = [];
    let mnemonic = this.word('an instruction');
    for (let prefix = PREFIXES.get(mnemonic); prefix !== undefined; prefix = PREFIXES.get(mnemonic)) {
      if (prefixes.includes(prefix)) this.fail(`prefix '${mnemonic}' twice`);
      prefixes.push(prefix);
      if (this.peek().kind === 'end') this.fail(`prefix '${mnemonic}' without an instruction on its line`);
      mnemonic = this.word('an instruction');
    }
    const operands: Operand[] = [];
    if (this.peek().kind !== 'end') {
      do operands.push(this.operand());
      while (this.accept(','));
    }
    if (this.peek().kind !== 'end') this.fail(`unexpected '${this.peek().text}'`);
    return {
      line: this.line,
      text: this.text.slice(first.at, this.peek().at).trimEnd(),
      prefixes,
      mnemonic,
      operands,
    };
  }

  /** What follows the last token: the comment, with its sign. */
  rest(): string {
    return this.text.slice(this.tokens.at(-1)?.at);
  }

  /** Directives that state what is so anyway pass; the others would change the bytes. */
  private directive(): void {
    const words = this.tokens.slice(this.next, -1).map((token) => token.text);
    const text = words.join(' ');
    const harmless =
      text === '.text' ||
      text === '.intel_syntax' ||
      text === '.intel_syntax noprefix' ||
      (/^\.glob(?:a)?l$/.test(words[0] ?? '') && words.length === 2 && this.peek(1).kind === 'name');
    if (!harmless)
      this.fail(`directive '${words[0]}' is not supported here; only instructions and labels are`);
  }

  private operand(): Operand {
    const start = this.peek();
    let size: number | undefined;
    let segment: string | undefined;
    let offset = false;
    const keyword = start.text.toLowerCase();
    if (start.kind === 'name' && SIZE_OF.has(keyword)) {
      this.next++;
      size = SIZE_OF.get(keyword);
      if (!this.acceptWord('ptr')) this.fail(`'ptr' expected after '${start.text}'`);
    }
    if (SEGMENTS.has(this.peek().text.toLowerCase()) && this.peek(1).text === ':') {
      segment = this.peek().text.toLowerCase();
      this.next += 2;
    }
    if (size === undefined && segment === undefined && this.acceptWord('offset')) {
      offset = true;
      if (this.acceptWord('flat')) this.expect(':');
    }
    const sum = new Sum(this.fail);
    let bracketed = false;
    if (this.peek().text !== '[') this.terms(sum);
    while (this.accept('[')) {
      bracketed = true;
      this.terms(sum);
      this.expect(']');
    }
    if (bracketed || size !== undefined || segment !== undefined) {
      if (offset) this.fail("'offset' names an address, '[...]' what is there; write one of them");
      return { kind: 'memory', size, segment, ...sum.address(bracketed) };
    }
    if (offset && sum.symbol === undefined) this.fail("'offset' needs the name of a label or symbol");
    return sum.plain(offset);
  }

  /** `rax + rcx*8 - 16 + name`: registers, numbers and at most one name. */
  private terms(sum: Sum): void {
    let negative = false;
    if (this.accept('-')) negative = true;
    else this.accept('+');
    for (;;) {
      this.term(sum, negative);
      if (this.accept('+')) negative = false;
      else if (this.accept('-')) negative = true;
      else return;
    }
  }

  private term(sum: Sum, negative: boolean): void {
    const token = this.take();
    if (token.kind === 'number') {
      if (!this.accept('*')) {
        sum.number(negative ? -token.value : token.value);
        return;
      }
      const factor = this.take();
      const name = factor.text.toLowerCase();
      if (factor.kind === 'name' && isRegister(name)) sum.register(name, token.value, negative);
      else if (factor.kind === 'number') sum.number((negative ? -1n : 1n) * token.value * factor.value);
      else this.fail(`a register or a number expected after '*', not '${factor.text}'`);
      return;
    }
    if (token.kind !== 'name') {
      this.fail(
        token.kind === 'end'
          ? 'operand expected at the end of the line'
          : `operand expected at '${token.text}'`,
      );
    }
    const name = token.text.toLowerCase();
    if (!isRegister(name)) {
      sum.name(token.text, negative);
      return;
    }
    let scale: bigint | undefined;
    if (this.accept('*')) {
      const factor = this.take();
      if (factor.kind !== 'number') this.fail(`a number expected after '${token.text} *'`);
      scale = factor.value;
    }
    sum.register(name, scale, negative);
  }

  private word(what: string): string {
    const token = this.take();
    if (token.kind !== 'name') this.fail(`${what} expected at '${token.text}'`);
    return token.text.toLowerCase();
  }

  private acceptWord(word: string): boolean {
    const token = this.peek();
    if (token.kind !== 'name' || token.text.toLowerCase() !== word) return false;
    this.next++;
    return true;
  }

  private accept(punctuation: string): boolean {
    const token = this.peek();
    if (token.kind !== 'punctuation' || token.text !== punctuation) return false;
    this.next++;
    return true;
  }

  private expect(punctuation: string): void {
    if (!this.accept(punctuation))
      this.fail(`'${punctuation}' expected at '${this.peek().text || 'the end'}'`);
  }

  private take(): Token {
    const token = this.peek();
    this.next++;
    return token;
  }

  private peek(ahead = 0): Token {
    return this.tokens[this.next + ahead] ?? { kind: 'end', text: '', value: 0n, at: this.text.length };
  }
}

/** The terms of one operand, added up. */
class Sum {
  symbol: string | undefined;
  private value = 0n;
  private readonly plainRegisters: string[] = [];
  private readonly scaled: { name: string; scale: number }[] = [];
  private readonly fail: Fail;

  constructor(fail: Fail) {
    this.fail = fail;
  }

  number(value: bigint): void {
    this.value += value;
    if (this.value >= 1n << 64n || this.value < -(1n << 63n)) this.fail('number wider than 64 bits');
  }

  name(name: string, negative: boolean): void {
    if (negative) this.fail(`'${name}' cannot be subtracted`);
    if (this.symbol !== undefined) this.fail(`'${this.symbol}' and '${name}' cannot be added`);
    this.symbol = name;
  }

  register(name: string, scale: bigint | undefined, negative: boolean): void {
    if (negative) this.fail(`register '${name}' cannot be subtracted`);
    if (scale === undefined) this.plainRegisters.push(name);
    else if (scale === 1n || scale === 2n || scale === 4n || scale === 8n)
      this.scaled.push({ name, scale: Number(scale) });
    else this.fail(`'${name}' cannot be scaled by ${scale}: only 1, 2, 4, 8`);
  }

  /** The sum as the address of a memory operand. */
  address(bracketed: boolean): Pick<MemoryOperand, 'base' | 'index' | 'scale' | 'displacement' | 'symbol'> {
    const registers = [...this.plainRegisters, ...this.scaled.map(({ name }) => name)];
    if (registers.length > 0 && !bracketed) this.fail(`'[...]' expected around '${registers[0]}'`);
    for (const name of registers) {
      if (!ADDRESS_REGISTER.test(name)) this.fail(`'${name}' cannot be part of an address`);
    }
    if (registers.length > 2 || this.scaled.length > 1)
      this.fail('an address has one base and one index register');
    const [base, second] = this.plainRegisters;
    const index = this.scaled[0]?.name ?? second;
    if (index === 'rip' || (base === 'rip' && index !== undefined))
      this.fail("'rip' goes with a displacement only");
    return {
      base,
      index,
      scale: this.scaled[0]?.scale ?? 1,
      displacement: this.value,
      symbol: this.symbol,
    };
  }

  /** The sum as an operand that is not memory. */
  plain(offset: boolean): Operand {
    const [name] = this.plainRegisters;
    if (this.plainRegisters.length + this.scaled.length === 0) {
      return { kind: 'value', value: this.value, symbol: this.symbol, offset };
    }
    const alone = this.scaled.length === 0 && this.plainRegisters.length === 1 && this.symbol === undefined;
    if (name === undefined || !alone || this.value !== 0n || offset)
      this.fail("an address is written in '[...]'");
    if (name === 'rip') this.fail("'rip' is not an operand");
    return { kind: 'register', name };
  }
}

const TOKEN =
  /[ \t]+|(?<name>[A-Za-z_.$@?][\w.$@?]*)|(?<number>\d\w*)|'(?<character>\\.|[^'\\])'|(?<comment>;|#|\/\/)|(?<punctuation>[[\]+\-*:,])/y;

/** Tokens of a line and an end token that stands where the comment begins. */
function tokenize(text: string, fail: Fail): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  for (let at = 0; at < text.length; at = TOKEN.lastIndex) {
    const groups = TOKEN.exec(text)?.groups;
    if (groups === undefined) {
      const found = String.fromCodePoint(text.codePointAt(at) ?? 0);
      return fail(`unexpected character ${JSON.stringify(found)}`);
    }
    const { name, number, character, comment, punctuation } = groups;
    if (comment !== undefined) {
      tokens.push({ kind: 'end', text: '', value: 0n, at });
      return tokens;
    }
    if (name !== undefined) tokens.push({ kind: 'name', text: name, value: 0n, at });
    else if (number !== undefined)
      tokens.push({ kind: 'number', text: number, value: numberValue(number, fail), at });
    else if (character !== undefined) {
      tokens.push({ kind: 'number', text: `'${character}'`, value: characterValue(character, fail), at });
    } else if (punctuation !== undefined)
      tokens.push({ kind: 'punctuation', text: punctuation, value: 0n, at });
  }
  tokens.push({ kind: 'end', text: '', value: 0n, at: text.length });
  return tokens;
}

function numberValue(text: string, fail: Fail): bigint {
  // 010 is eight to some assemblers and ten to others, 10h unknown to most.
  if (!/^(?:0|[1-9]\d*|0[xX][\da-fA-F]+|0[bB][01]+)$/.test(text)) {
    fail(`'${text}' is not a number; write 10, 0xa or 0b1010`);
  }
  // Past 20 digits it is too wide anyway: spare the conversion of a line-long number.
  if (text.length > 70) fail('number wider than 64 bits');
  return BigInt(text);
}

function characterValue(text: string, fail: Fail): bigint {
  const code = text.startsWith('\\') ? ESCAPES.get(text.slice(1)) : text.charCodeAt(0);
  if (code === undefined || code > 127) fail(`'${text}' is not a character that fits a byte`);
  return BigInt(code as number);
}
