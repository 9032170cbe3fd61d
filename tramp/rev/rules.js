/*
 * What kernel revisions do differently around trampolines. A later revision is the earlier one with some
 * rules replaced, so that its file shows exactly what changed. A rule that is a function is pure.
 */
export {};
//# sourceMappingURL=rules.js.map