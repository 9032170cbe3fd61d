export { COLUMNS, type Column, columnOf, LEGEND } from './column.ts';
export { COUNTS, type CountName, type Counts, type ExecutedInsn, executed, Tally } from './counts.ts';
export { countMix, type MixCounts, type PartCounts, recordCall } from './measure.ts';
export { type Mix, mixesOf } from './mix.ts';
export { Scene } from './scene.ts';
