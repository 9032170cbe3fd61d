export type { AccessEvent, BeginOptions, BreakpointHandler, CallOptions, CallResult, EngineName, GuestMemory, LoadFaultHandler, Machine, MachineOptions, ParallelCall, PerCpu, PerCpuVars, Perms, Region, RegisterName, Registers, RunOptions, RunResult, Snapshot, Stack, Vcpu, VcpuContext, } from './api.ts';
export type { Fault, FaultKind, Location, Locator } from './fault.ts';
export type { AddressRange, Layout, LayoutName } from './layout.ts';
export { createMachine } from './machine.ts';
export { openUnicorn } from './unicorn/library.ts';
