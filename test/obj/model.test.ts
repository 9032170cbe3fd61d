import { describe, expect, it } from 'vitest';
import { objectBtf, parsePrototype } from '../../obj/index.ts';
import { fixture } from './support.ts';

/** The prototypes of the fixtures, written down again by hand (and by rule where they follow one). */
const LETTERS = ['a', 'b', 'c', 'd', 'e', 'f'];
const WIDTHS = ['u8', 's8', 'u16', 's16', 'u32', 's32', 'u64', 's64'];

const DEMO = [
  'u32 grind_beans(u8 grams, u16 fineness)',
  'int schedule_coffee(u8 cups, int sugar, u64 deadline)',
  'u64 shave_yak(u32 depth)',
  'bool cpu_is_awake(int cpu)',
  'const char *panic_reason(u32 code)',
];

const WIDE = [
  ...WIDTHS.flatMap((type) =>
    LETTERS.map((_, last) => {
      const params = LETTERS.slice(0, last + 1).map((letter) => `${type} ${letter}`);
      return `${type} ${type}_args${last + 1}(${params.join(', ')})`;
    }),
  ),
  ...[...WIDTHS, 'bool'].map((type) => `${type} ${type}_args0(void)`),
  'void void_args0(void)',
  'void void_args3(u8 a, s16 b, u64 c)',
  'void void_args6(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)',
  'u64 mixed6(u8 a, s16 b, u32 c, s64 d, char e, bool f)',
  's32 mixed4(s64 a, s8 b, u16 c, s32 d)',
  'long basics5(unsigned char a, short b, unsigned int c, unsigned long d, long long e)',
  'bool bool_args3(bool a, bool b, bool c)',
  'enum gear enum_args2(enum gear now, u8 up)',
  'size_t pointer_args2(const char *text, const char *stop)',
  'struct pair *pointer_result(struct pair *list, u32 left)',
  's32 pointer_write(s32 *to, volatile u16 *also, s32 value)',
  'u64 pointer_call(u64 (*callback)(void *, u64), void *context, u64 value)',
];

const CONTROL = [
  'u64 factorial(u32 n)',
  'u32 fibonacci(u32 n)',
  'u32 is_even(u32 n)',
  'u32 is_odd(u32 n)',
  'u32 next_random(void)',
  's64 calculate(u8 operation, s64 a, s64 b)',
  's64 twice(s64 x)',
  's64 square(s64 x)',
  's64 negate(s64 x)',
  's64 apply(u32 which, s64 x)',
  'const char *name_of(u32 which)',
  'u32 fill(u8 byte, u32 bytes)',
  'u32 call_optional(u32 value)',
];

const PROBES = ['entry', 'modify_return', 'exit', 'nested']
  .map((name) => `u64 coffee_${name}(u64 *ctx)`)
  .concat('u64 record_slots(u64 *ctx)');

describe('the model from BTF is the model from the prototype', () => {
  describe.each([
    ['demo.o', DEMO],
    ['demo-untraced.o', DEMO],
    ['demo-patchable.o', DEMO],
    ['wide.o', WIDE],
    ['control.o', CONTROL],
    ['probes.o', PROBES],
    ['demo.image', [...DEMO, 'int _start(void)']],
  ])('%s', (name, prototypes) => {
    const object = fixture(name);
    const btf = objectBtf(object);

    it.each(prototypes)('%s', (text) => {
      const expected = parsePrototype(text);
      expect(btf?.funcModel(expected.name)).toEqual(expected);
    });

    it('and no function is missing here', () => {
      const defined = object.symbols.filter(
        (symbol) => symbol.type === 'func' && !symbol.name.endsWith('.cold'),
      );
      const names = defined.map((symbol) => symbol.name).filter((one) => one !== '__fentry__');
      expect(prototypes.map((text) => parsePrototype(text).name).sort()).toEqual(names.sort());
    });
  });
});
