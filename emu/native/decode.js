/*
 * What an instruction was about to do with memory: the hardware says that an access failed, not always
 * where (#GP) and never how wide it was. Asked only when a guest has faulted.
 */
import { createRequire } from 'node:module';
import { isCanonical } from '../layout.js';
// As for listings: a megabyte of WebAssembly, loaded when it is needed.
const require = createRequire(import.meta.url);
let loaded;
function load() {
    if (loaded === undefined) {
        const iced = require('iced-x86');
        loaded = { iced, info: new iced.InstructionInfoFactory() };
    }
    return loaded;
}
/** Decodes one instruction; undefined when the bytes are none. */
export function decode(bytes, rip, registers) {
    const { iced, info } = load();
    const decoder = new iced.Decoder(64, bytes, iced.DecoderOptions.None);
    decoder.ip = rip;
    const insn = decoder.decode();
    try {
        if (insn.isInvalid)
            return undefined;
        const registerValue = (register) => {
            const full = iced.RegisterExt.fullRegister(register);
            if (full === iced.Register.None)
                return 0n;
            const value = registers(iced.Register[full].toLowerCase());
            const bits = 8 * iced.RegisterExt.size(register);
            return BigInt.asUintN(Math.min(bits, 64), value);
        };
        const baseOf = (segment) => segment === iced.Register.GS ? registers('gs_base') : 0n;
        const addressOf = (memory) => BigInt.asUintN(64, baseOf(memory.segment) +
            registerValue(memory.base) +
            registerValue(memory.index) * BigInt(memory.scale) +
            memory.displacement);
        const accesses = info.info(insn).usedMemory()
            .filter((memory) => !iced.RegisterExt.isVectorRegister(memory.index))
            .map((memory) => {
            const { access } = memory;
            const { Read, CondRead, Write, CondWrite, ReadWrite, ReadCondWrite } = iced.OpAccess;
            const both = access === ReadWrite || access === ReadCondWrite;
            return {
                address: addressOf(memory),
                sizeBytes: iced.MemorySizeExt.size(memory.memorySize),
                reads: both || access === Read || access === CondRead,
                writes: both || access === Write || access === CondWrite,
            };
        })
            .filter(({ reads, writes }) => reads || writes);
        return {
            sizeBytes: insn.length,
            kind: kindOf(insn, iced),
            vector: insn.code === iced.Code.Int_imm8 ? insn.immediate8 : 0,
            accesses,
            target: targetOf(insn, iced, accesses, registerValue),
        };
    }
    finally {
        insn.free();
        decoder.free();
    }
}
function kindOf(insn, iced) {
    const { Mnemonic } = iced;
    switch (insn.mnemonic) {
        case Mnemonic.Hlt:
            return 'hlt';
        case Mnemonic.Int:
            return 'int';
        case Mnemonic.In:
        case Mnemonic.Out:
        case Mnemonic.Insb:
        case Mnemonic.Insw:
        case Mnemonic.Insd:
        case Mnemonic.Outsb:
        case Mnemonic.Outsw:
        case Mnemonic.Outsd:
            return 'port-io';
        default:
            return 'other';
    }
}
function targetOf(insn, iced, accesses, registerValue) {
    const { FlowControl, OpKind } = iced;
    switch (insn.flowControl) {
        case FlowControl.IndirectBranch:
        case FlowControl.IndirectCall:
            if (insn.op0Kind === OpKind.Register)
                return { value: registerValue(insn.op0Register) };
            break;
        case FlowControl.Return:
            break;
        default:
            return undefined;
    }
    const source = accesses.find((access) => access.reads && access.sizeBytes === 8);
    return source && { at: source.address };
}
/** The access that failed at an address, if one is known that reaches there. */
export function accessAt(decoded, address, writes) {
    return decoded.accesses.find((access) => (writes ? access.writes : access.reads) &&
        BigInt.asUintN(64, address - access.address) < BigInt(access.sizeBytes));
}
/** The access that no address of 48 bits is meant by. */
export function nonCanonicalAccess(decoded) {
    return decoded.accesses.find(({ address, sizeBytes }) => !isCanonical(address) || !isCanonical(BigInt.asUintN(64, address + BigInt(sizeBytes) - 1n)));
}
//# sourceMappingURL=decode.js.map