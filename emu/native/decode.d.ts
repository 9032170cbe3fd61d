/** An access to data that an instruction makes. */
export interface DataAccess {
    readonly address: bigint;
    readonly sizeBytes: number;
    readonly reads: boolean;
    readonly writes: boolean;
}
export interface Decoded {
    readonly sizeBytes: number;
    readonly kind: 'hlt' | 'port-io' | 'int' | 'other';
    /** Of `int`: the vector. */
    readonly vector: number;
    readonly accesses: readonly DataAccess[];
    /** Where an indirect jump, call or return goes: a register's value, or an address that holds it. */
    readonly target: {
        readonly value: bigint;
    } | {
        readonly at: bigint;
    } | undefined;
}
/** Values of registers by their Intel names in lower case, `gs_base` among them. */
export type RegisterValues = (name: string) => bigint;
/** Decodes one instruction; undefined when the bytes are none. */
export declare function decode(bytes: Uint8Array, rip: bigint, registers: RegisterValues): Decoded | undefined;
/** The access that failed at an address, if one is known that reaches there. */
export declare function accessAt(decoded: Decoded, address: bigint, writes: boolean): DataAccess | undefined;
/** The access that no address of 48 bits is meant by. */
export declare function nonCanonicalAccess(decoded: Decoded): DataAccess | undefined;
