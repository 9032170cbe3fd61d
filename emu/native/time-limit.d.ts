export declare class TimeLimit {
    #private;
    constructor(limitMs: number, used: () => number | undefined);
    start(): void;
    isOver(): boolean;
}
