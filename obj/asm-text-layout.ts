/**
 * A whole text at one address: names become numbers, jumps find their width, every instruction is
 * encoded, and read back. Nothing comes out unless all of it is right.
 */

import { InputError, type Kaddr } from '../lib/index.ts';
import type { AsmTextOptions, AssembledText } from './asm-text.ts';
import { canonicalMnemonic, readBack } from './asm-text-check.ts';
import {
  type Assembler,
  type BranchWidth,
  branchLength,
  type Encoded,
  encodeBranch,
  encodeInstruction,
  hasForm,
  type Instruction,
  isBranch,
  loadAssembler,
} from './asm-text-encode.ts';
import { type Operand, parseText, type Statement, type ValueOperand } from './asm-text-parse.ts';

const NO_SYMBOLS: ReadonlyMap<string, Kaddr> = new Map();

/** See assembleText. */
export async function layoutText(source: string, options: AsmTextOptions): Promise<AssembledText> {
  const { statements, labels, doubtful } = parseText(source, options.file);
  return new Layout(statements, options, labelled(labels, options.file), await loadAssembler()).run(doubtful);
}

function labelled(labels: ReturnType<typeof parseText>['labels'], file: string): Map<string, number> {
  const before = new Map<string, number>();
  const lineOf = new Map<string, number>();
  for (const label of labels) {
    const first = lineOf.get(label.name);
    if (first !== undefined) {
      throw new InputError(file, `line ${label.line}`, `label '${label.name}' is already on line ${first}`);
    }
    lineOf.set(label.name, label.line);
    before.set(label.name, label.before);
  }
  return before;
}

class Layout {
  /** Bytes of each statement. */
  private readonly lengths: number[] = [];
  /** Start of each statement, and the end of the last. */
  private offsets: number[] = [0];
  private readonly statements: readonly Statement[];
  private readonly options: AsmTextOptions;
  /** Label to the index of the statement it stands before. */
  private readonly labels: ReadonlyMap<string, number>;
  private readonly assembler: Assembler;

  constructor(
    statements: readonly Statement[],
    options: AsmTextOptions,
    labels: ReadonlyMap<string, number>,
    assembler: Assembler,
  ) {
    this.statements = statements;
    this.options = options;
    this.labels = labels;
    this.assembler = assembler;
  }

  run(doubtful: readonly Statement[]): AssembledText {
    this.measure();
    for (const comment of doubtful) this.refuseIfInstruction(comment);
    const bytes = new Uint8Array(this.offsets.at(-1) ?? 0);
    for (const [i, statement] of this.statements.entries())
      bytes.set(this.encodeChecked(statement, i), this.offsets[i]);
    return {
      bytes,
      lines: this.statements.map(({ line, text }, i) => ({
        line,
        text,
        offset: this.offsets[i] ?? 0,
        length: this.lengths[i] ?? 0,
      })),
      labels: new Map([...this.labels].map(([name, before]) => [name, this.offsets[before] ?? 0])),
    };
  }

  /**
   * Fixes the length of every statement. A jump within the text begins short and grows when its target is
   * out of reach; growth only ever moves targets away, so what grew stays grown and the loop ends.
   */
  private measure(): void {
    for (const statement of this.statements) {
      const branch = this.directBranch(statement);
      if (branch === undefined)
        this.lengths.push(this.encodeStatement(statement, this.options.address).length);
      else this.lengths.push(branchLength(branch.mnemonic, branch.width));
    }
    for (let grown = true; grown; ) {
      this.place();
      grown = false;
      for (const [i, statement] of this.statements.entries()) {
        const branch = this.directBranch(statement);
        if (branch?.label === undefined || !hasForm(branch.mnemonic, 'near')) continue;
        const near = branchLength(branch.mnemonic, 'near');
        if (this.lengths[i] === near) continue;
        const end = (this.offsets[i] ?? 0) + (this.lengths[i] ?? 0);
        const distance = (this.offsets[branch.label] ?? 0) + branch.addend - end;
        if (distance >= -128 && distance <= 127) continue;
        this.lengths[i] = near;
        grown = true;
      }
    }
  }

  private place(): void {
    this.offsets = [0];
    for (const length of this.lengths) this.offsets.push((this.offsets.at(-1) ?? 0) + length);
  }

  /** What is known of a branch to a code address before it is placed: its label, its first width. */
  private directBranch(
    statement: Statement,
  ): { mnemonic: string; label: number | undefined; addend: number; width: BranchWidth } | undefined {
    const mnemonic = this.mnemonic(statement);
    const target = branchTarget(mnemonic, statement);
    if (target === undefined) return undefined;
    if (statement.prefixes.length > 0)
      this.fail(statement, `prefix '${statement.prefixes[0]}' does not go with it`);
    const label = target.symbol === undefined ? undefined : this.labels.get(target.symbol);
    const short = hasForm(mnemonic, 'short') && (label !== undefined || !hasForm(mnemonic, 'near'));
    return { mnemonic, label, addend: Number(target.value), width: short ? 'short' : 'near' };
  }

  /** The bytes of statement `i` where it stands, read back. */
  private encodeChecked(statement: Statement, i: number): Uint8Array {
    const address = BigInt.asUintN(64, this.options.address + BigInt(this.offsets[i] ?? 0));
    const instruction = this.resolve(statement);
    const target = branchTarget(instruction.mnemonic, instruction);
    let bytes: Encoded;
    if (target === undefined) {
      bytes = this.encodeStatement(statement, address);
    } else {
      const near = this.lengths[i] === branchLength(instruction.mnemonic, 'near');
      bytes = encodeBranch(instruction.mnemonic, target.value, near ? 'near' : 'short', address);
    }
    if (typeof bytes === 'string') return this.fail(statement, bytes);
    const reason = readBack(instruction, bytes, address);
    if (reason !== undefined) this.fail(statement, reason);
    if (bytes.length !== this.lengths[i])
      this.fail(statement, 'an address so close to zero changes its length');
    return bytes;
  }

  private encodeStatement(statement: Statement, address: bigint): Uint8Array {
    const bytes = encodeInstruction(this.assembler, this.resolve(statement), address);
    return typeof bytes === 'string' ? this.fail(statement, bytes) : bytes;
  }

  /** `;` separates statements in other assemblers: text after it that would assemble was perhaps meant to. */
  private refuseIfInstruction(comment: Statement): void {
    try {
      const instruction = this.resolve(comment);
      if (branchTarget(instruction.mnemonic, instruction) === undefined) {
        const bytes = encodeInstruction(this.assembler, instruction, this.options.address);
        if (typeof bytes === 'string' || readBack(instruction, bytes, this.options.address) !== undefined)
          return;
      }
    } catch (error) {
      if (error instanceof InputError) return;
      throw error;
    }
    this.fail(
      comment,
      `';' begins a comment, yet '${comment.text}' reads as an instruction; give it a line of its own, or comment with '#'`,
    );
  }

  private mnemonic(statement: Statement): string {
    const mnemonic = canonicalMnemonic(statement.mnemonic);
    if (mnemonic !== undefined) return mnemonic;
    return this.fail(statement, `unknown mnemonic '${statement.mnemonic}'`);
  }

  /** Names become addresses, and spellings the one that keystone and iced share. */
  private resolve(statement: Statement): Instruction {
    const mnemonic = this.mnemonic(statement);
    if (mnemonic === 'iret') this.fail(statement, "operand size is ambiguous: write 'iretq' or 'iretd'");
    const operands = statement.operands.map((op) => this.resolveOperand(statement, mnemonic, op));
    const [first, second] = operands;
    if (SHIFTS.has(mnemonic) && operands.length === 1) operands.push(ONE);
    if (mnemonic === 'imul' && operands.length === 2 && first !== undefined && second?.kind === 'value') {
      operands.splice(1, 0, first);
    }
    const addressInRegister =
      mnemonic === 'mov' &&
      first?.kind === 'register' &&
      /^r(?:[a-z]{2}|\d+)$/.test(first.name) &&
      isAddress(second);
    return {
      prefixes: statement.prefixes,
      mnemonic,
      wide: statement.mnemonic === 'movabs' || addressInRegister,
      operands,
    };
  }

  private resolveOperand(statement: Statement, mnemonic: string, op: Operand): Operand {
    if (op.kind === 'register' || op.symbol === undefined) return op;
    const { symbol } = op;
    if (op.kind === 'value' && !isBranch(mnemonic)) {
      if (!op.offset) {
        this.fail(
          statement,
          `'${symbol}' alone is ambiguous: write 'offset ${symbol}' for its address, '[${symbol}]' for what is there`,
        );
      }
      if (mnemonic !== 'mov') this.fail(statement, `an address goes through a register: mov it there first`);
    }
    const label = this.labels.get(symbol);
    const address =
      label === undefined
        ? (this.options.symbols ?? NO_SYMBOLS).get(symbol)
        : this.options.address + BigInt(this.offsets[label] ?? 0);
    if (address === undefined) return this.fail(statement, `undefined symbol '${symbol}'`);
    if (op.kind === 'value') return { ...op, value: BigInt.asUintN(64, op.value + address) };
    return { ...op, displacement: BigInt.asUintN(64, op.displacement + address) };
  }

  private fail(statement: Statement, message: string): never {
    const { line, text } = statement;
    const shown = text.length > 60 ? `${text.slice(0, 60)}…` : text;
    throw new InputError(this.options.file, `line ${line}`, `'${shown}': ${message}`);
  }
}

const SHIFTS: ReadonlySet<string> = new Set(['shl', 'shr', 'sar', 'rol', 'ror', 'rcl', 'rcr']);
const ONE: ValueOperand = { kind: 'value', value: 1n, symbol: undefined, offset: false };

const isAddress = (op: Operand | undefined): boolean => op?.kind === 'value' && op.symbol !== undefined;

/** The code address that a direct branch names. */
function branchTarget(
  mnemonic: string,
  { operands }: { readonly operands: readonly Operand[] },
): ValueOperand | undefined {
  const [target] = operands;
  return isBranch(mnemonic) && operands.length === 1 && target?.kind === 'value' ? target : undefined;
}
