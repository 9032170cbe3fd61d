declare global {
  /** tinypool's types ask the DOM's Worker what it offers; here there is no DOM. */
  interface Worker {
    readonly onmessage: unknown;
  }
}

export {};
