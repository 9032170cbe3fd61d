import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { rowsOf, testReferences, tokensOf } from './references.ts';

/** Every function of the two seeds. */
const FUNCTIONS = [
  'bpf_jit_alloc_exec_page',
  'bpf_image_ksym_add',
  'bpf_image_ksym_del',
  'bpf_trampoline_lookup',
  'bpf_trampoline_module_get',
  'bpf_trampoline_module_put',
  'is_ftrace_location',
  'unregister_fentry',
  'modify_fentry',
  'register_fentry',
  'bpf_trampoline_get_progs',
  '__bpf_tramp_image_put_deferred',
  '__bpf_tramp_image_put_rcu',
  '__bpf_tramp_image_release',
  '__bpf_tramp_image_put_rcu_tasks',
  'bpf_tramp_image_put',
  'bpf_tramp_image_alloc',
  'bpf_trampoline_update',
  'bpf_attach_type_to_tramp',
  'bpf_trampoline_link_prog',
  'bpf_trampoline_unlink_prog',
  'bpf_trampoline_get',
  'bpf_trampoline_put',
  'bpf_prog_start_time',
  'inc_misses_counter',
  '__bpf_prog_enter',
  'update_prog_stats',
  '__bpf_prog_exit',
  '__bpf_prog_enter_sleepable',
  '__bpf_prog_exit_sleepable',
  '__bpf_tramp_enter',
  '__bpf_tramp_exit',
  'arch_prepare_bpf_trampoline',
  'init_trampolines',
];

const text = readFileSync('docs/seeds.md', 'utf8');
const rows = rowsOf(text, ['function', 'delta']);
const mapping = rows.filter((cells) => cells.length === 4 || cells.length === 3);
describe('docs/seeds.md', () => {
  test.each(FUNCTIONS)('%s has a row', (name) => {
    expect(mapping.some(([first]) => first === `\`${name}\``)).toBe(true);
  });

  testReferences(mapping.flatMap((cells) => tokensOf(cells.join(' '))));

  test('every branch has code and a test, or says why not', () => {
    const bare = mapping.filter((cells) => {
      const [, , codeCell, testCell] = cells.length === 4 ? cells : ['', ...cells];
      const why = /not modelled: |simplified: |broken invariant/.test(codeCell ?? '');
      return !why && (!codeCell?.includes('.ts#') || !testCell?.includes(': '));
    });
    expect(bare.filter(([first]) => !/^-+$/.test(first ?? ''))).toEqual([]);
  });
});
