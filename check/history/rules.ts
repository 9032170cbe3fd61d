/** What must hold in every history, by rule. The judge knows these, and nothing of what might break them. */
export const HISTORY_RULES = {
  'no-fault': 'Guest code does nothing that faults.',
  'freed-image': 'No task runs text that was freed: an image, a program, or a module.',
  'freed-program': 'No task reads or writes the memory of a program that was freed.',
  'broken-invariant': "The manager's own books stay in order: nothing is freed or put twice.",
  terminates: 'Tasks, grace periods and work come to an end.',
  'attach-errno':
    'Each operation ends with the errno that the table, the site and the failure ask for, or with success.',
  'failed-operation-changes-nothing':
    'An operation that fails leaves table, images, symbols, charge, references, memory and bytes as they were.',
  'table-agrees':
    'After each operation the table holds what was attached, in order, with its cookies, flags, references, numbers, symbols, room, charge and module references.',
  'site-bytes':
    "After each operation a function's entry holds the call, the jump or the nop that the table asks for, and the bytes behind it are its own.",
  warnings: 'The kernel warns of what it must warn of, and of nothing else.',
  'runs-agree':
    'A call runs the programs that were attached when it entered, in order, the function among them, each once or not at all because it was running already; of an image retired meanwhile it leaves out the fexit programs.',
  'return-value': 'A call returns what the function, or the program that stands in for it, returned.',
  'func-ip': "A program that asks for the traced function's address gets it.",
  cookie:
    'A program that asks for its cookie gets that of the link by which it is called, from its beginning to its end.',
  'read-side':
    'A program runs inside rcu_read_lock, a sleepable one inside rcu_read_lock_trace, and neither is migrated.',
  recursion:
    'A program does not run on a CPU that it runs on already, unless its kind is not counted, and is refused only there.',
  balanced: 'A task comes back from a call in no section, free to migrate, and with no run_ctx.',
  'counters-add-up':
    'Misses count the refused runs, statistics the runs that began and ended while they were on; nothing is left active, and no sequence odd.',
  splats:
    'might_fault says so each time that a sleepable program is entered inside rcu_read_lock, and at no other time.',
  'everything-given-back':
    'When all is detached and put, nothing is left: images, charge, symbols, references, memory, callbacks.',
} as const;

export type HistoryRule = keyof typeof HISTORY_RULES;
