/*
 * The rules that images are judged by. docs/rules.md says of each what breaks it and what the kernel loses
 * by that; a test keeps the two lists the same.
 */

/** Every rule: its name, and what it asks for. */
export const IMAGE_RULES = {
  'args-seen': 'Each program finds the arguments in its context, each in its own width.',
  'context-in-frame': 'The context lies in the image’s own frame, all of it, on a multiple of 8.',
  'func-ip': 'Where a program asks for it, the word below its context is the traced function’s address.',
  'program-order': 'Programs run by kind, fentry, fmod_ret, fexit, and within a kind in array order.',
  'program-runs': 'A program that its enter function lets run, runs.',
  'skipped-runs-nothing':
    'A program that its enter function refuses does not run, and is exited all the same.',
  'enter-exit-pair': 'Each program is entered once and exited once, with itself as argument.',
  'start-time': 'Exit gets the start time that enter returned, all 64 bits.',
  'helper-sleepable':
    'Sleepable programs are entered and exited by the sleepable pair, others by the normal one.',
  'interpreter-insnsi':
    'A program that is not jited gets the address of its instructions as second argument.',
  'tramp-enter-exit':
    'An image that calls the original enters itself before its first program and exits itself after its last.',
  'original-args':
    'The original is called with the arguments, filled up to 64 bits as the kernel’s reload does.',
  'original-called':
    'The original is called once, behind its site when the frame is to be skipped, at its site otherwise.',
  'fmod-ret-slot-zero': 'The result is zero when an fmod_ret program begins.',
  'fmod-ret-chain':
    'The first fmod_ret program that returns something else than zero, in all 64 bits, ends the chain and keeps the original from running.',
  'fexit-result':
    'fexit programs see the result: what the original returned, or the program that spoke in its place.',
  'return-value': 'rax holds the result where the image has one.',
  'restored-args':
    'Where registers are to be restored, the traced function goes on with its arguments in them.',
  'return-place': 'The image returns to the traced function, or past it to its caller, as its flags say.',
  'callee-saved': 'rbx, rbp and r12 to r15 are as they were.',
  rsp: 'rsp is where a return leaves it.',
  'rbp-chain': 'In every call, rbp points at the caller’s rbp with the return address above it.',
  'direction-flag': 'The direction flag is clear in every call and at the return.',
  'control-flags': 'No flag but the arithmetic ones is changed, in any call and at the return.',
  'stack-alignment': 'Every call is made at the kernel’s distance from a multiple of 16.',
  'writes-outside-frame': 'Nothing outside the image’s frame is written.',
  'writes-below-rsp': 'Nothing below rsp is written: an interrupt would overwrite it.',
  'foreign-state':
    'No register but the general ones is used, no privileged instruction, and no memory by a segment with a base of its own.',
  'retired-epilogue':
    'An image that is retired while the original runs goes on with its exit function, and runs no fexit program.',
  'call-target': 'Control goes nowhere but to the functions that the request names.',
  terminates: 'The call ends.',
  'no-fault': 'No instruction of the image faults.',
  'length-and-sites': 'Length, ip_after_call and ip_epilogue are what was reported.',
  refusal: 'What the kernel refuses is refused, with its errno, and nothing else is.',
  'recursion-counter':
    'A program’s counter of active runs refuses a second run and is back where it was after the call.',
  statistics: 'Runs, misses and time are counted as they happened.',
  'reader-sections':
    'Programs run inside their read-side section, with migration off, and all of it is undone.',
  'image-reference': 'The image is referenced while it can be in use, and not longer.',
  // from v6.1 on
  'arg-count': 'The word below the context is the number of argument words, in all its 64 bits.',
  'run-ctx':
    'Enter gets a run_ctx in the image’s own frame, exit gets the same, and what was current before is current again.',
  cookie: 'Each program finds its own cookie in the current run_ctx.',
  'helper-pair':
    'Programs that must not recur, programs of a cgroup and all others are entered and exited each by their pair.',
  'stack-arguments': 'The original finds on its stack the arguments that its caller left there.',
  'tail-call-count':
    'Where rax carries the tail call count, it does so in the call of the original, and in the return without one.',
  endbr: 'An image that is reached by pointer begins with ENDBR where the kernel is built for IBT.',
  'return-hardening':
    'Images return through the return thunk where there is one, and put int3 behind their return where speculation must stop.',
  'call-depth': 'Where calls are counted, each is counted once before it is made.',
} as const;

export type ImageRule = keyof typeof IMAGE_RULES;
