import { hex64, type Kaddr } from '../lib/index.ts';
import type { ProgramSpec } from './combination.ts';
import { FIELD, type Shape, slotOffset } from './recorder.ts';

/*
 * The recording program (recorder.ts) as x86-64 text for our lab: the same words at the same places.
 * rbx keeps the context, r12 the block.
 */

/** What the text calls. */
export interface TextOptions {
  /** Where the block of records is. */
  readonly block: Kaddr;
  /** The traced function, for programs that call it themselves. */
  readonly fn: string;
}

export function recorderText(
  spec: ProgramSpec,
  slot: number,
  shape: Shape,
  { block, fn }: TextOptions,
): string {
  const own = slotOffset(slot);
  const place = (field: number): string => `qword ptr [r12 + ${own + field}]`;
  const word = (index: number): string => `qword ptr [rbx + ${8 * index}]`;
  const keep = (from: string, field: number): string[] => [`mov rax, ${from}`, `mov ${place(field)}, rax`];
  const ask = (helper: string, field: number): string[] => [
    'mov rdi, rbx',
    `call ${helper}`,
    `mov ${place(field)}, rax`,
  ];
  const lines = [
    ...['push rbx', 'push r12', 'sub rsp, 8', 'mov rbx, rdi', `movabs r12, ${hex64(block)}`],
    ...['inc qword ptr [r12]', ...keep('qword ptr [r12]', FIELD.order), `inc ${place(FIELD.runs)}`],
    ...shape.words.flatMap((_, i) => keep(spec.kind === 'freplace' ? 'rbx' : word(i), FIELD.args + 8 * i)),
    ...(shape.hasRet ? keep(word(shape.words.length), FIELD.ret) : []),
    ...(spec.funcIp === true ? ask('bpf_get_func_ip', FIELD.funcIp) : []),
    ...(spec.cookie !== undefined ? ask('bpf_get_attach_cookie', FIELD.cookie) : []),
    ...(spec.argCount === true ? ask('bpf_get_func_arg_cnt', FIELD.argCount) : []),
    // with the arguments that it was called with itself
    ...(spec.recurses === true ? [`mov rdi, ${word(0)}`, `mov rsi, ${word(1)}`, `call ${fn}`] : []),
    ...[`mov eax, ${spec.returns ?? 0}`, 'add rsp, 8', 'pop r12', 'pop rbx', 'ret'],
  ];
  return `${lines.join('\n')}\n`;
}
