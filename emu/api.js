/*
 * The machine as the other rooms see it. The implementations are beside this file, one idea each:
 * memory.ts, percpu.ts, vcpu.ts, snapshot.ts; machine.ts puts them together over an engine (engine.ts).
 */
export {};
//# sourceMappingURL=api.js.map