/** A few instructions as bytes, so that these tests need no assembler. */

function le(value: bigint | number, bytes: number): number[] {
  const wide = BigInt.asUintN(64, BigInt(value));
  return Array.from({ length: bytes }, (_, i) => Number((wide >> BigInt(8 * i)) & 0xffn));
}

export function code(...parts: readonly (number | readonly number[])[]): Uint8Array {
  return Uint8Array.from(parts.flat());
}

export const nop = 0x90;
export const ret = 0xc3;
export const hlt = 0xf4;
export const int3 = 0xcc;
export const ud2: number[] = [0x0f, 0x0b];
export const syscall: number[] = [0x0f, 0x05];
export const pushRax = 0x50;
export const popRax = 0x58;
export const pushRdi = 0x57;
export const incRax: number[] = [0x48, 0xff, 0xc0];
export const incRdi: number[] = [0x48, 0xff, 0xc7];
/** mov rax, rdi */
export const movRaxRdi: number[] = [0x48, 0x89, 0xf8];
/** mov rax, rsp */
export const movRaxRsp: number[] = [0x48, 0x89, 0xe0];
/** lea rax, [rdi + rsi] */
export const leaRaxRdiRsi: number[] = [0x48, 0x8d, 0x04, 0x37];
/** mov rax, [rdi] */
export const loadRaxRdi: number[] = [0x48, 0x8b, 0x07];
/** mov [rdi], rsi */
export const storeRdiRsi: number[] = [0x48, 0x89, 0x37];
/** add [rdi], rsi */
export const addRdiRsi: number[] = [0x48, 0x01, 0x37];
export const jmpRdi: number[] = [0xff, 0xe7];
export const callRdi: number[] = [0xff, 0xd7];
/** jmp to itself */
export const jmpSelf: number[] = [0xeb, 0xfe];
export const xorEcxEcx: number[] = [0x31, 0xc9];
export const divEcx: number[] = [0xf7, 0xf1];

export function movEax(value: number): number[] {
  return [0xb8, ...le(value, 4)];
}

export function movAbsRax(value: bigint): number[] {
  return [0x48, 0xb8, ...le(value, 8)];
}

/** mov rax, gs:[offset] */
export function loadRaxGs(offset: number): number[] {
  return [0x65, 0x48, 0x8b, 0x04, 0x25, ...le(offset, 4)];
}

/** mov gs:[offset], rdi */
export function storeGsRdi(offset: number): number[] {
  return [0x65, 0x48, 0x89, 0x3c, 0x25, ...le(offset, 4)];
}

/** jmp short */
export function jmp8(distance: number): number[] {
  return [0xeb, ...le(distance, 1)];
}

/** jne short */
export function jne8(distance: number): number[] {
  return [0x75, ...le(distance, 1)];
}
