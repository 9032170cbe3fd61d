import { type Kaddr } from '../lib/index.ts';
import type { ImageState } from './image.ts';
import type { KsymKind } from './kallsyms.ts';
import type { Kernel } from './kernel.ts';
import { type AttachKind, type ProgCounters } from './prog.ts';
import type { RcuFlavourName } from './rcu.ts';
export interface KsymInfo {
    readonly name: string;
    readonly address: Kaddr;
    readonly sizeBytes: number;
    readonly kind: KsymKind;
    /** Null for text that belongs to no module. */
    readonly module: string | null;
}
export interface ProgInfo {
    readonly name: string;
    readonly kind: AttachKind;
    readonly sleepable: boolean;
    readonly linked: boolean;
    readonly references: number;
    /** One per CPU. */
    readonly counters: readonly ProgCounters[];
}
/** What keeps a retired image alive. */
export interface ImageWait {
    /** The grace period; null when it waits for the work queue or for calls in flight. */
    readonly flavour: RcuFlavourName | null;
    /** Tasks that hold up the grace period of that flavour that is under way. */
    readonly tasks: readonly string[];
}
export interface ImageInfo {
    readonly ksym: string;
    readonly address: Kaddr;
    /** Code, bytes. */
    readonly length: number;
    readonly state: ImageState;
    /** percpu_ref: its owner's until it is killed, and one for each call in flight. */
    readonly references: bigint;
    /** Null while something may still call it. */
    readonly waitsFor: ImageWait | null;
}
export interface TrampolineState {
    readonly key: bigint;
    /** Null before anybody named it. */
    readonly function: string | null;
    readonly references: number;
    /** Attached programs, newest first. */
    readonly progs: Readonly<Record<'fentry' | 'fmod_ret' | 'fexit', readonly string[]>>;
    readonly extension: string | null;
    /** Symbol of the image that the function calls. */
    readonly image: string | null;
    readonly selector: number;
}
export interface ModuleInfo {
    readonly name: string;
    readonly origin: 'module' | 'kernel';
    /** Trampolines that keep it loaded. */
    readonly references: number;
}
/** A kernel at one moment. */
export interface KernelReport {
    readonly trampolines: readonly TrampolineState[];
    readonly programs: readonly ProgInfo[];
    readonly images: readonly ImageInfo[];
    readonly modules: readonly ModuleInfo[];
    readonly ksyms: readonly KsymInfo[];
    /** Pages of executable memory charged to BPF. */
    readonly modmemPages: number;
    /** What WARN_ON printed, oldest first. */
    readonly warnings: readonly string[];
}
/** Reads everything; changes nothing. */
export declare function introspect(kernel: Kernel): KernelReport;
/** As one JSON document: 64-bit values are hex strings. */
export declare function reportToJson(report: KernelReport): string;
/** As tables, for people. Kernel text is left out; `Kallsyms.lines` has it. */
export declare function formatReport(report: KernelReport): string;
