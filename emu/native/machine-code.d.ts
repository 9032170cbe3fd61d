/** A byte, or a distance that is known when all places are: 8 or 32 bits, from the end of the instruction. */
export type Part = number | {
    readonly place: string;
    readonly widthBytes: 1 | 4;
};
/** `name:`, or an instruction. */
export type Row = string | readonly [text: string, ...parts: Part[]];
export interface MachineCode {
    readonly bytes: Uint8Array;
    /** Offsets of the places, constants included. */
    readonly places: ReadonlyMap<string, number>;
    readonly instructions: readonly {
        readonly offset: number;
        readonly sizeBytes: number;
        readonly text: string;
    }[];
}
/** The distance to a place, in one byte. */
export declare function to(place: string): Part;
/** The distance to a place, in four bytes. */
export declare function far(place: string): Part;
/** A value as little-endian bytes. */
export declare function le(value: bigint | number, bytes: number): number[];
/**
 * Puts rows together, then the constants, each on a multiple of 8.
 * @throws Bug for a place that is not there, or out of reach
 */
export declare function machineCode(rows: readonly Row[], constants: Readonly<Record<string, readonly number[]>>): MachineCode;
