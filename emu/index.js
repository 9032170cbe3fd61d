export { createMachine } from './machine.js';
export { openUnicorn } from './unicorn/library.js';
//# sourceMappingURL=index.js.map