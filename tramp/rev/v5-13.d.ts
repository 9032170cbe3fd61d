import type { ManagerRules } from './rules.ts';
export declare const v5_13: ManagerRules;
