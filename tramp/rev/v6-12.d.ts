import type { ManagerRules } from './rules.ts';
export declare const v6_12: ManagerRules;
