import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ArgModel, type FuncModel, parsePrototype, type RetModel } from '../../obj/index.ts';
import { inputError } from './support.ts';

/** A type, the ways to write it in front of a name, and what it must come out as. */
interface Spelled {
  readonly writings: readonly string[];
  readonly model: Omit<ArgModel, 'name'>;
}

const integer = (type: string, sizeBytes: 1 | 2 | 4 | 8, signed: boolean, ...others: string[]): Spelled => ({
  writings: [type, ...others],
  model: { type, sizeBytes, signed, pointer: false },
});

const pointer = (type: string, ...others: string[]): Spelled => ({
  writings: [type, ...others],
  model: { type, sizeBytes: 8, signed: false, pointer: true },
});

const SPELLED: readonly Spelled[] = [
  integer('char', 1, true),
  integer('signed char', 1, true, 'char signed', '__signed__ char'),
  integer('unsigned char', 1, false, 'char unsigned'),
  integer('short', 2, true, 'short int', 'signed short', 'int short signed', 'short signed int'),
  integer('unsigned short', 2, false, 'short unsigned int', 'unsigned short int', 'int unsigned short'),
  integer('int', 4, true, 'signed', 'signed int', 'int signed'),
  integer('unsigned int', 4, false, 'unsigned', 'int unsigned'),
  integer('long', 8, true, 'long int', 'signed long', 'int long', 'long signed int'),
  integer('unsigned long', 8, false, 'long unsigned int', 'unsigned long int', 'int long unsigned'),
  integer('long long', 8, true, 'long long int', 'signed long long', 'long int long'),
  integer(
    'unsigned long long',
    8,
    false,
    'unsigned long long int',
    'long long unsigned int',
    'long unsigned int long',
  ),
  integer('_Bool', 1, false),
  integer('bool', 1, false),
  ...['u8', '__u8', 'uint8_t'].map((name) => integer(name, 1, false)),
  ...['s8', '__s8', 'int8_t'].map((name) => integer(name, 1, true)),
  ...['u16', '__u16', 'uint16_t', 'umode_t', '__be16'].map((name) => integer(name, 2, false)),
  ...['s16', '__s16', 'int16_t'].map((name) => integer(name, 2, true)),
  ...['u32', '__u32', 'uint32_t', 'uid_t', 'gid_t', 'dev_t', 'gfp_t'].map((name) => integer(name, 4, false)),
  ...['s32', '__s32', 'int32_t', 'pid_t'].map((name) => integer(name, 4, true)),
  ...['u64', '__u64', 'uint64_t', 'size_t', 'sector_t'].map((name) => integer(name, 8, false)),
  ...['s64', '__s64', 'int64_t', 'ssize_t', 'loff_t'].map((name) => integer(name, 8, true)),
  integer('enum gear', 4, false),
  integer('const int', 4, true, 'int const', 'const signed int', 'const int const'),
  integer('volatile u8', 1, false, 'u8 volatile'),
  pointer('void *', 'void*', 'void  *'),
  pointer('const char *', 'char const *', 'const char*'),
  pointer('struct file *', 'struct file*', 'struct file __user *'),
  pointer('const volatile struct s *', 'volatile struct s const *'),
  pointer('union u **', 'union u * *'),
  pointer('char *const', 'char * const'),
  pointer('u64 *restrict', 'u64 *__restrict'),
  pointer('mystery_t *'),
];

const spelled = fc
  .constantFrom(...SPELLED)
  .chain(({ writings, model }) => fc.constantFrom(...writings).map((writing) => ({ writing, model })));

/** Declarators of parameters that have the name inside. */
const WRAPPED: readonly { write: (name: string) => string; model: Spelled['model'] }[] = [
  { write: (name: string) => `int (*${name})(void *, u64)`, model: pointer('int (*)(void *, u64)').model },
  { write: (name: string) => `void ${name}(int)`, model: pointer('void (*)(int)').model },
  { write: (name: string) => `u32 ${name}[16]`, model: pointer('u32 *').model },
  { write: (name: string) => `const char *${name}[]`, model: pointer('const char **').model },
  { write: (name: string) => `int (*${name})[3]`, model: pointer('int (*)[3]').model },
  {
    write: (name: string) => `void (*(*${name})(int))(void)`,
    model: pointer('void (*(*)(int))(void)').model,
  },
  { write: (name: string) => `int (${name})`, model: integer('int', 4, true).model },
  { write: (name: string) => `long ${name} __attribute__((unused))`, model: integer('long', 8, true).model },
];

const identifier = fc.stringMatching(/^[a-z_][a-z0-9_]{2,8}$/).map((name) => `${name}_x`);

/** A parameter as text with the model it must give. */
const parameter = fc.oneof(
  fc.tuple(spelled, fc.option(identifier, { nil: undefined })).map(([{ writing, model }, name]) => ({
    text: name === undefined ? writing : `${writing} ${name}`,
    model: { name, ...model } satisfies ArgModel,
  })),
  fc.tuple(fc.constantFrom(...WRAPPED), identifier).map(([{ write, model }, name]) => ({
    text: write(name),
    model: { name, ...model } satisfies ArgModel,
  })),
);

const VOID: { writing: string; model: RetModel } = {
  writing: 'void',
  model: { type: 'void', sizeBytes: 0, signed: false, pointer: false },
};

const PREFIXES = [
  '',
  'static ',
  'extern ',
  'static inline ',
  'asmlinkage ',
  '__attribute__((noinline, aligned(16))) ',
];

const prototype = fc
  .record({
    prefix: fc.constantFrom(...PREFIXES),
    ret: fc.oneof(spelled, fc.constant(VOID)),
    name: identifier,
    params: fc.array(parameter, { maxLength: 12 }),
    space: fc.constantFrom(' ', '  ', '\n\t'),
    end: fc.constantFrom('', ';', ' ;\n', ' __attribute__((cold));'),
  })
  .map(({ prefix, ret, name, params, space, end }) => {
    const list = params.length === 0 ? 'void' : params.map((param) => param.text).join(`,${space}`);
    const model: FuncModel = { name, args: params.map((param) => param.model), ret: ret.model };
    return { text: `${prefix}${ret.writing}${space}${name}(${list})${end}`, model };
  });

describe('parsePrototype', () => {
  it('gives back the model that a prototype was written from', () => {
    fc.assert(
      fc.property(prototype, ({ text, model }) => {
        expect(parsePrototype(text)).toEqual(model);
      }),
      { numRuns: 2000 },
    );
  });

  it('reads what it spells', () => {
    fc.assert(
      fc.property(prototype, ({ model }) => {
        const simple = model.args.filter((arg) => !arg.type.includes('('));
        const list = simple.map((arg) => arg.type).join(', ') || 'void';
        const again = parsePrototype(`${model.ret.type} f(${list})`);
        expect(again.args).toEqual(simple.map((arg) => ({ ...arg, name: undefined })));
        expect(again.ret).toEqual(model.ret);
      }),
      { numRuns: 500 },
    );
  });

  it.each(SPELLED.flatMap(({ writings, model }) => writings.map((writing) => [writing, model] as const)))(
    '%s',
    (writing, model) => {
      expect(parsePrototype(`${writing} f(${writing})`)).toEqual({
        name: 'f',
        args: [{ name: undefined, ...model }],
        ret: model,
      });
    },
  );

  it('takes functions that give back function pointers, and odd parentheses', () => {
    expect(parsePrototype('void (*signal(int sig, void (*func)(int)))(int)')).toMatchObject({
      name: 'signal',
      ret: { type: 'void (*)(int)', pointer: true },
      args: [{ type: 'int' }, { type: 'void (*)(int)', name: 'func' }],
    });
    expect(parsePrototype('int (f)(int (a), int (*b))').args.map((arg) => arg.type)).toEqual([
      'int',
      'int *',
    ]);
  });

  it.each<[string, number]>([
    ['char a', 1],
    ['char a[3]', 3],
    ['char a; short b', 4],
    ['char a; int b', 8],
    ['int a, b', 8],
    ['long a; char b', 16],
    ['void *p; bool is_kernel', 16],
    ['struct in { char a; short b; } x; char c', 6],
    ['int a[2]; enum e e', 12],
  ])('a struct by value { %s; } has %i bytes', (members, sizeBytes) => {
    expect(parsePrototype(`int f(const struct s { ${members}; } x, int y)`).args).toMatchObject([
      { name: 'x', type: 'const struct s', sizeBytes, struct: true },
      { name: 'y', sizeBytes: 4 },
    ]);
  });

  it.each<[string, number | undefined, RegExp]>([
    ['int f(float x)', 7, /parameter 1 'x' \(float\) is a floating-point number/],
    ['int f(int a, double)', 14, /parameter 2 \(double\) is a floating-point number/],
    ['int f(long double x)', 7, /\(long double\) is a floating-point/],
    ['double f(void)', 8, /the result \(double\) is a floating-point number/],
    ['int f(struct s x)', 7, /parameter 1 'x' \(struct s\) is a struct by value, and its size is not known/],
    ['int f(struct s { long a, b, c; } x)', 7, /is a struct by value of 24 bytes; at most 16/],
    ['int f(struct s { } x)', 7, /is a struct by value without any bytes/],
    ['int f(struct s { int a : 3; } x)', 24, /expected ';', not ':'/],
    ['int f(struct s { struct t t; } x)', 27, /member t of struct s has a size that is not known/],
    ['int f(struct s { float t; } x)', 24, /member t of struct s has a size that is not known/],
    ['int f(struct s { int; } x)', 21, /expected the name of a member of struct s/],
    ['int f(struct s { int a; x)', 26, /expected/],
    ['int f(int a,  const union u x)', 15, /parameter 2 'x' \(const union u\) is a union by value/],
    ['struct s f(int a)', 10, /the result \(struct s\) is a struct by value/],
    ['int printk(const char *fmt, ...)', 5, /takes a variable number of arguments \(\.\.\.\)/],
    ['int f(...)', 7, /'\.\.\.' needs a parameter before it/],
    ['__int128 f(void)', 10, /the result \(__int128\) is an integer of 128 bits/],
    ['int f(unsigned __int128 x)', 7, /\(unsigned __int128\) is an integer of 128 bits/],
    ['int f(foo_t x)', 7, /of the unknown type foo_t: write the integer or pointer type it stands for/],
    ['foo_t f(int x)', 7, /the result \(foo_t\) is of the unknown type foo_t/],
    ['int f()', 6, /an empty parameter list leaves the arguments open; write '\(void\)'/],
    ['int f(a, b)', 7, /of the unknown type a/],
    ['int f(void x)', 7, /parameter 1 'x' \(void\) is void/],
    ['int f(int a, void)', 14, /parameter 2 \(void\) is void/],
    [
      `int f(${Array.from({ length: 13 }, () => 'int').join(', ')})`,
      5,
      /has 13 parameters; a trampoline takes at most 12/,
    ],
    ['short char f(int)', 1, /'short char' is no type of C/],
    ['long long long f(int)', 1, /'long long long' is no type of C/],
    ['int f(signed unsigned x)', 7, /'signed unsigned' is no type/],
    ['int f(u64 int x)', 7, /two types at once/],
    ['int f(unsigned _Bool x)', 7, /'unsigned _Bool' is no type/],
    ['int x', 5, /'x' is no function: it has no parameter list/],
    ['int (*f)(int)', 7, /'f' is no function/],
    ['int (int)', 10, /the function has no name/],
    ['f', 2, /the function has no name/],
    ['', 1, /expected a type/],
    ['   ', 4, /expected a type/],
    ['int f(int a', 12, /expected '\)', not the end/],
    ['int f(int a b)', 13, /expected '\)', not 'b'/],
    ['int f(int a,)', 13, /expected a type/],
    ['int f(int a) { return a; }', 14, /a function body; give the prototype only/],
    ['int f(int), g(int)', 11, /a second declaration/],
    ['int f(int) int', 12, /expected the end, not 'int'/],
    ['int f(struct { int a; } *x)', 14, /expected the name of the struct/],
    ['int f(enum e { A } x)', 14, /a definition of enum e; give its name only/],
    ['int f(int) __attribute__((cold)', 32, /the attribute is not closed/],
    ['constructor f(int)', 13, /of the unknown type constructor/],
    ['int f(int \u0007)', 11, /expected '\)', not '\\x07'/],
    ['x'.repeat(3000), undefined, /longer than 2048 characters/],
  ])('refuses %s', (text, column, message) => {
    const error = inputError(() => parsePrototype(text, '--model'));
    expect(error.file).toBe('--model');
    if (column !== undefined) expect(error.at).toBe(`column ${column}`);
    expect(error.message).toMatch(message);
    expect(error.message).not.toContain('\n');
  });

  it('never gives anything but a model or an InputError', () => {
    const word = fc.constantFrom(
      ...'int char long unsigned u64 void struct enum s f * ( ) [ ] , ; ... const 7 __attribute__ float { } @'.split(
        ' ',
      ),
    );
    const text = fc.oneof(
      fc.array(word, { maxLength: 40 }).map((words) => words.join(' ')),
      fc.string({ maxLength: 60, unit: 'binary' }),
      fc
        .tuple(fc.constantFrom('(', '*', '[', '(*', 'f('), fc.nat(1000))
        .map(([mark, n]) => `int ${mark.repeat(n)}f(int)`),
    );
    let models = 0;
    fc.assert(
      fc.property(text, (one) => {
        try {
          parsePrototype(one);
          models++;
        } catch (error) {
          expect(error).toMatchObject({ name: 'InputError' });
          expect(String(error)).not.toMatch(/[\n\r]/);
        }
      }),
      { numRuns: 5000 },
    );
    expect(models).toBeGreaterThan(0);
  });
});
