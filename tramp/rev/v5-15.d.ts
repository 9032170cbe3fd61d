import type { ManagerRules } from './rules.ts';
export declare const v5_15: ManagerRules;
