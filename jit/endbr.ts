/** The landing place of indirect branches that the emitters write. */
export const ENDBR: readonly number[] = [0xf3, 0x0f, 0x1e, 0xfa];

/** Bytes of every form of it. */
export const ENDBR_BYTES = 4;

/** ENDBR64; ENDBR32; a nop that says that an ENDBR was here and has been sealed. */
const FORMS: readonly (readonly number[])[] = [ENDBR, [0xf3, 0x0f, 0x1e, 0xfb], [0x66, 0x0f, 0x1f, 0x00]];

/** Whether bytes begin with any form of ENDBR. Kernel: is_endbr, arch/x86/include/asm/ibt.h */
export function isEndbr(bytes: Uint8Array): boolean {
  return FORMS.some((form) => form.every((byte, i) => bytes[i] === byte));
}

/** What a sealed ENDBR becomes. Kernel: gen_endbr_poison */
export const ENDBR_POISON: readonly number[] = FORMS[2] as readonly number[];
