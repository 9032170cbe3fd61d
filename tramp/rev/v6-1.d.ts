import type { ManagerRules } from './rules.ts';
export declare const v6_1: ManagerRules;
